// The line under the node: what became of its latest job, with Retry or Cancel.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { cancel, describe, hasEnded, jobsOfNode, onJob, retry } from "./jobs.js";
import { element, showError } from "./dom.js";

const HEIGHT_PX = 30;
const COLOURS = { pending: "#7fb2e5", completed: "#6fcf87", failed: "#ff7b7b", cancelled: "#aaa" };

/** Whether this page queued the job: another page's node of the same id is another node. */
function isOurs(job) {
  return job.page !== null && [api.clientId, api.initialClientId].includes(job.page);
}

/** The node of a job; ids of nodes in subgraphs are "outer:inner". */
function nodeOf(job) {
  let graph = app.rootGraph ?? app.graph;
  let node = null;
  for (const part of String(job.node).split(":")) {
    node = graph?.getNodeById?.(part) ?? graph?.getNodeById?.(Number(part));
    graph = node?.subgraph;
  }
  return node?.lunaBadge ? node : null;
}

/** The job to show: the oldest that is under way, else the newest. */
function shown(nodeId) {
  const jobs = jobsOfNode(nodeId).filter(isOurs);
  const open = jobs.filter((job) => !hasEnded(job));
  return { job: open.length ? open[open.length - 1] : jobs[0], open: open.length };
}

function draw(node, nodeId) {
  const { job, open } = shown(nodeId);
  const badge = node.lunaBadge;
  if (!job) return;
  badge.root.dataset.state = job.state;
  badge.text.textContent = (open > 1 ? `${open} under way · ` : "") + describe(job);
  badge.root.title = job.paths.length ? job.paths.join("\n") : job.detail || job.job_id;
  const done = job.state === "completed" ? 1 : job.images_done / Math.max(1, job.images);
  badge.bar.style.width = `${Math.round(100 * done)}%`;
  badge.retry.hidden = job.state !== "failed";
  badge.cancel.hidden = hasEnded(job);
  badge.job = job;
  node.setDirtyCanvas?.(true, true);
}

function makeBadge() {
  const badge = { root: element("div", "luna-badge") };
  badge.bar = element("div", "luna-bar");
  badge.text = element("span", "luna-text", "no job yet");
  badge.retry = element("button", "luna-button", "Retry");
  badge.cancel = element("button", "luna-button", "Cancel");
  badge.retry.hidden = badge.cancel.hidden = true;
  badge.retry.onclick = () => retry(badge.job).catch(showError);
  badge.cancel.onclick = () => cancel(badge.job).catch(showError);
  badge.root.setAttribute("aria-live", "polite");
  badge.root.append(badge.bar, badge.text, badge.retry, badge.cancel);
  return badge;
}

/** Pictures that come late find the node too short: ComfyUI makes room only when it runs. */
function makeRoom(node) {
  const last = node.widgets?.at(-1);
  const bottom = (last?.y ?? 0) + (last?.computedHeight ?? 0);
  if (node.imgs?.length && bottom > node.size[1]) node.setSize([node.size[0], bottom]);
}

/** The same in the title: the node is long. */
function drawTitle(node, context) {
  const job = node.lunaBadge.job;
  if (!job || node.flags?.collapsed) return;
  context.save();
  context.font = "12px sans-serif";
  context.textAlign = "right";
  context.fillStyle = COLOURS[job.state] ?? COLOURS.pending;
  const text = job.state === "failed" ? "failed" : describe(job);
  context.fillText(`● ${text}`, node.size[0] - 10, -LiteGraph.NODE_TITLE_HEIGHT / 2 + 4);
  context.restore();
}

/** Gives a new saver node its badge: a widget that is no part of workflow or prompt. */
export function addBadge(node) {
  if (node.lunaBadge || !node.addDOMWidget) return;
  node.lunaBadge = makeBadge();
  const onDrawForeground = node.onDrawForeground;
  node.onDrawForeground = function (context, ...rest) {
    onDrawForeground?.call(this, context, ...rest);
    drawTitle(this, context);
    makeRoom(this);
  };
  const widget = node.addDOMWidget("luna_status", "luna_status", node.lunaBadge.root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => HEIGHT_PX,
    getMaxHeight: () => HEIGHT_PX,
  });
  widget.serialize = false;
  widget.computeSize = (width) => [width, HEIGHT_PX];
}

/** After a workflow was loaded: what is known of its nodes. */
export function showKnown(node) {
  if (node.lunaBadge) draw(node, node.id);
}

/** From now on badges follow the jobs. */
export function followJobs() {
  onJob((job) => {
    const node = isOurs(job) ? nodeOf(job) : null;
    if (node) draw(node, job.node);
  });
}
