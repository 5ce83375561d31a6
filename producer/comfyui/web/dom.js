// Elements and messages. Every text goes in as text: prompts and paths are not ours.

const TOAST_MS = 30_000;

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** A message at the edge of the page, with buttons {label: what to do}. */
export function toast(text, kind, buttons = {}) {
  let stack = document.getElementById("luna-toasts");
  if (!stack) {
    stack = element("div");
    stack.id = "luna-toasts";
    document.body.append(stack);
  }
  const root = element("div", `luna-toast luna-${kind}`);
  root.setAttribute("role", kind === "error" ? "alert" : "status");
  root.append(element("span", "luna-text", text));
  const close = () => root.remove();
  for (const [label, action] of Object.entries({ ...buttons, "×": () => {} })) {
    const button = element("button", "luna-button", label);
    button.onclick = () => {
      close();
      Promise.resolve(action()).catch(showError);
    };
    root.append(button);
  }
  stack.append(root);
  setTimeout(close, TOAST_MS);
}

export function showError(error) {
  toast(`Luna: ${error.message || error}`, "error");
}

export function addStyle() {
  const link = element("link");
  link.rel = "stylesheet";
  link.href = new URL("./luna.css", import.meta.url).href;
  document.head.append(link);
}
