// Luna in ComfyUI's page: a badge in the node, a tab in the sidebar, messages on failures.

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addBadge, followJobs, showKnown } from "./badge.js";
import { addStyle, toast } from "./dom.js";
import { describe, onJob, retry, start } from "./jobs.js";
import { handleJpeg, setting } from "./jpeg.js";
import { addTab } from "./tab.js";

const NODE = "LunaMultiSaver";
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

app.registerExtension({
  name: "luna",
  settings: [setting],
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
