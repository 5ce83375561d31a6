// The sidebar tab: is the daemon there, how long is its queue, what became of our jobs.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { allJobs, ask, cancel, describe, hasEnded, onJob, retry } from "./jobs.js";
import { element, showError } from "./dom.js";

const ASK_EVERY_MS = 2000;
const SHOWN = 50;

function line(text, bad) {
  return element("div", `luna-line${bad ? " luna-bad" : ""}`, text);
}

function age(ms) {
  return ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`;
}

/** A daemon of another version may not tell the formats. */
function describeDecoder({ name, device, state, images_done, formats }) {
  const writes = formats?.length ? `; writes ${formats.join(", ")}` : "";
  return `${name} (${device}): ${state}, ${images_done} pictures${writes}`;
}

function drawStatus(root, status) {
  root.replaceChildren();
  const queue = status.queue;
  if (!queue) {
    root.append(line(`No daemon answers at ${status.endpoint ?? "its address"}.`, true));
    if (status.unsettled) root.append(line(`${status.unsettled} jobs wait for it here.`));
    return;
  }
  const oldest = queue.pending ? `, the oldest for ${age(queue.oldest_ms)}` : "";
  root.append(line(`${queue.pending} waiting${oldest}; ${queue.in_progress} being decoded`));
  root.append(line(`${queue.completed} completed, ${queue.failed} failed`));
  if (queue.paused) root.append(line("The queue is paused.", true));
  if (queue.alarm) root.append(line(queue.alarm, true));
  if (!status.decoders.length) root.append(line("No decoder is running.", true));
  for (const decoder of status.decoders) root.append(line(describeDecoder(decoder)));
}

function picture(job) {
  const file = job.files[0];
  if (!file) return [];
  const image = element("img");
  const query = new URLSearchParams({ ...file, preview: "webp;60" });
  image.src = api.apiURL(`/view?${query}`);
  image.alt = file.filename;
  return [image];
}

/** The first file, below ComfyUI's output folder where it is there. */
function where(job) {
  const file = job.files[0];
  if (!file) return job.paths[0] ?? job.job_id;
  return file.subfolder ? `${file.subfolder}/${file.filename}` : file.filename;
}

function row(job) {
  const root = element("div", "luna-job");
  root.dataset.job = job.job_id;
  root.dataset.state = job.state;
  const text = element("div", "luna-text");
  text.append(line(describe(job), job.state === "failed"));
  text.append(line(where(job)));
  text.title = job.paths.join("\n") || job.job_id;
  root.append(...picture(job), text);
  const button = (label, action) => {
    const made = element("button", "luna-button", label);
    made.onclick = () => action(job).catch(showError);
    root.append(made);
  };
  if (job.state === "failed") button("Retry", retry);
  if (!hasEnded(job)) button("Cancel", cancel);
  return root;
}

function fill(root) {
  const status = element("div");
  const list = element("div");
  root.classList.add("luna-tab");
  root.replaceChildren(element("h3", "", "Luna"), status, element("h3", "", "Jobs"), list);
  const drawJobs = () => list.replaceChildren(...allJobs().slice(0, SHOWN).map(row));
  const look = () => ask("/luna/status").then((found) => drawStatus(status, found),
                                              (error) => drawStatus(status, { endpoint: error }));
  drawJobs();
  look();
  const timer = setInterval(look, ASK_EVERY_MS);
  const forget = onJob(drawJobs);
  return () => {
    clearInterval(timer);
    forget();
  };
}

export function addTab() {
  let stop = () => {};
  app.extensionManager?.registerSidebarTab?.({
    id: "luna",
    icon: "pi pi-moon",
    title: "Luna",
    tooltip: "Luna: the decode queue",
    type: "custom",
    render: (root) => {
      stop();
      stop = fill(root);
    },
    destroy: () => stop(),
  });
}
