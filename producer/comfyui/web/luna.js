// Luna in ComfyUI's page: a badge in the node, a tab in the sidebar, messages on failures.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addBadge, followJobs, showKnown } from "./badge.js";
import { addStyle, toast } from "./dom.js";
import { describe, onJob, retry, start } from "./jobs.js";
import { handleJpeg, setting } from "./jpeg.js";
import { addTab } from "./tab.js";

const NODE = "LunaMultiSaverAsync";
const OTHERS = "LunaMultiSaver"; // of another package; with a latent_1 it is ours (ids.py)
const NOTICES = { away: "error", outbox_failed: "error", refused: "error", lost: "error",
                  back: "info", delivered: "info" };

function tellFailures() {
  onJob((job, before) => {
    if (job.state !== "failed" || !before || before.state === "failed") return;
    toast(`Luna: pictures were not saved: ${describe(job)}`, "error", { Retry: () => retry(job) });
  });
  api.addEventListener("luna.notice", (event) => {
    const kind = NOTICES[event.detail.kind];
    if (kind) toast(`Luna: ${event.detail.reason}`, kind);
  });
}

function rename(node) {
  const ours = node.type === OTHERS && node.inputs?.some((input) => input.name === "latent_1");
  if (!ours) return;
  node.type = NODE;
  const name = "Node name for S&R";
  if (node.properties?.[name] === OTHERS) node.properties[name] = NODE;
}

app.registerExtension({
  name: "luna",
  settings: [setting],
  beforeConfigureGraph(graph) {
    const subgraphs = graph.definitions?.subgraphs ?? [];
    for (const { nodes } of [graph, ...subgraphs]) nodes?.forEach(rename);
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) addBadge(node);
  },
  loadedGraphNode(node) {
    if (node.comfyClass === NODE) showKnown(node);
  },
  async setup() {
    addStyle();
    followJobs();
    tellFailures();
    addTab();
    handleJpeg();
    await start();
  },
});
