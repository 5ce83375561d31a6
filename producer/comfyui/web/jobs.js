// What the page knows of this ComfyUI's jobs: told by events, asked for once at the start.

import { api } from "../../scripts/api.js";

const KEPT = 500;
const ENDS = ["completed", "failed", "cancelled"];

const jobs = new Map(); // job id: job, in the order they became known
const listeners = new Set();

/** Calls `listener(job, before)` for each change; `before` is the job as it was, or undefined. */
export function onJob(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function hasEnded(job) {
  return ENDS.includes(job.state);
}

/** Newest first. */
export function allJobs() {
  return [...jobs.values()].sort((a, b) => b.made - a.made);
}

export function jobsOfNode(nodeId) {
  return allJobs().filter((job) => String(job.node) === String(nodeId));
}

/** One line for a person. */
export function describe(job) {
  switch (job.state) {
    case "sending":
      return "on its way to the daemon";
    case "pending":
      return job.position ? `queued, ${job.position} ahead` : "queued";
    case "in_progress":
      return `decoding ${Math.min(job.images_done + 1, job.images)} of ${job.images}`;
    case "completed":
      return `saved ${job.images_done || job.images}`;
    case "failed":
      return `failed: ${job.detail || job.error}`;
    default:
      return job.state;
  }
}

/** POST to one of Luna's routes; the answer's body. Throws an Error with its sentence. */
export async function order(path) {
  const answer = await api.fetchApi(path, { method: "POST" });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.detail || body.error);
  return body;
}

export async function ask(path) {
  const answer = await api.fetchApi(path);
  return answer.json();
}

export const retry = (job) => order(`/luna/jobs/${job.job_id}/retry`);
export const cancel = (job) => order(`/luna/jobs/${job.job_id}/cancel`);

function take(job) {
  const before = jobs.get(job.job_id);
  jobs.set(job.job_id, job);
  if (jobs.size > KEPT) jobs.delete(jobs.keys().next().value);
  for (const listener of listeners) listener(job, before);
}

/** Begins to listen, and asks for the jobs of before this page was loaded. */
export async function start() {
  api.addEventListener("luna.job", (event) => take(event.detail));
  try {
    const found = await ask("/luna/jobs");
    for (const job of found.jobs.reverse()) if (!jobs.has(job.job_id)) take(job);
  } catch (error) {
    console.warn("Luna: no list of jobs:", error);
  }
}
