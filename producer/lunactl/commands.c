#include "producer/lunactl/commands.h"

#include <stddef.h>
#include <string.h>

#define CTL(name, kind, member, value, help)                                         \
    {                                                                                \
        name, LUNA_FLAG_##kind, LUNA_FLAG_OF_CTL, offsetof(luna_ctl, member), value, \
            help, 0, 0                                                               \
    }
#define CTL_U32(name, member, least, most, value, help)                                 \
    {                                                                                   \
        name, LUNA_FLAG_U32, LUNA_FLAG_OF_CTL, offsetof(luna_ctl, member), value, help, \
            least, most                                                                 \
    }
#define INPUT(name, kind, member, value, help)                                     \
    {                                                                              \
        name, LUNA_FLAG_##kind, LUNA_FLAG_OF_INPUT, offsetof(luna_latent, member), \
            value, help, 0, 0                                                      \
    }
#define INPUT_U32(name, member, least, most, value, help)                              \
    {                                                                                  \
        name, LUNA_FLAG_U32, LUNA_FLAG_OF_INPUT, offsetof(luna_latent, member), value, \
            help, least, most                                                          \
    }
#define COUNT(table) (sizeof table / sizeof table[0])

const luna_flag luna_common_flags[] = {
    CTL("--broker", TEXT, broker, "ADDRESS", "ipc:///PATH or tcp://HOST:PORT?key=KEY"),
    CTL("--json", ON, json, NULL, "print JSON"),
    CTL("--help", ON, help, NULL, "this text"),
    CTL("--version", ON, version, NULL, "the version"),
};
const size_t luna_common_flag_count = COUNT(luna_common_flags);

static const luna_flag submit_flags[] = {
    {"--latents", LUNA_FLAG_LATENTS, LUNA_FLAG_OF_CTL, 0, "FILE[:TENSOR]",
     "safetensors or .latent; up to 5 times", 0, 0},
    INPUT("--affix", TEXT, affix, "A", "in the names of this input, and its folder"),
    INPUT("--no-subdir", OFF, subdir, NULL, "no folder named after the affix"),
    INPUT("--format", TEXT, format, "png|webp|jpeg|avif|jxl", "of this input; png"),
    INPUT_U32("--png-compression", png_compression, 0, 9, "0-9", "4"),
    INPUT_U32("--png-bits", png_bits, 8, 16, "8|16", "a channel, in png; 8"),
    INPUT_U32("--lossy-quality", lossy_quality, 70, 100, "70-100", "all but png; 90"),
    INPUT("--lossless-webp", ON, lossless_webp, NULL, "no loss in webp and jxl"),
    CTL("--vae", TEXT, job.vae, "VAE", "which one decodes: a name, a path or auto; auto"),
    CTL("--output-dir", TEXT, job.output_dir, "DIR", "the decoder's first root"),
    CTL("--save-path", TEXT, job.save_path, "T", "template of the folders below"),
    CTL("--filename", TEXT, job.filename, "T", "template of the names"),
    CTL("--model-name", TEXT, job.model_name, "S", "for %model_name% and the metadata"),
    CTL("--filename-index", U64, job.filename_index, "N", "for %index%; 0"),
    CTL("--prompt", TEXT, prompt_file, "FILE.json", "else the latent file's own"),
    CTL("--workflow", TEXT, workflow_file, "FILE.json", "else the latent file's own"),
    CTL("--metadata", TEXT, metadata_file, "FILE.json", "generation metadata"),
    CTL("--no-embed", OFF, job.embed_workflow, NULL, "nothing but pixels in the files"),
    CTL("--sidecar", ON, job.sidecar, NULL, "a .json file of the texts beside each"),
    CTL("--parameters", ON, job.parameters, NULL, "also AUTOMATIC1111's text"),
    CTL("--quality-gate", TEXT, job.quality_gate, "disabled|variance|edge_density|both",
        "sort out empty pictures; disabled"),
    CTL("--min-quality", REAL, job.min_quality, "X", "threshold of the gate; 0.3"),
    CTL("--save-mode", TEXT, job.save_mode, "daemon|database_store",
        "also record in PostgreSQL; daemon"),
    CTL_U32("--priority", job.priority, 0, 9, "0-9", "9 is most urgent; 5"),
    CTL("--deadline", MS, job.deadline_ms, "SECONDS",
        "it fails if it is not completed by then"),
    CTL("--job-id", TEXT, job.job_id, "UUID", "the same id is never stored twice"),
    CTL("--wait", ON, wait, NULL, "until it has ended; print a path for each file"),
};

static const luna_flag jobs_flags[] = {
    CTL("--state", TEXT, state, "pending|in_progress|completed|failed|cancelled",
        "only these"),
    CTL("--limit", U64, limit, "N", "the newest N; 100"),
};

static const luna_flag retry_flags[] = {
    CTL("--failed", ON, failed, NULL, "every failed job"),
};

static const luna_flag drain_flags[] = {
    CTL("--wait", ON, wait, NULL, "until they hold nothing"),
};

static const luna_flag top_flags[] = {
    CTL("--once", ON, once, NULL, "print one page and end"),
};

static const char submit_note[] =
    "Prints the job id. The options from --affix to --lossless-webp belong to the\n"
    "--latents before them; given before the first --latents, to all inputs.\n"
    "luna-decoder offers the save mode daemon; a job that asks for another fails with a\n"
    "sentence. Pictures that the quality gate sorts out lie in _discarded.\n";
static const char jobs_note[] =
    "AGE is the time in the present state. On a terminal of less than 100 columns only\n"
    "the end of each id is shown.\n";
static const char wait_note[] =
    "Prints a path for each saved file; with --json the job, a line whenever it "
    "changes.\n"
    "An ID is a whole id, or 8 characters or more of its beginning or its end, if only\n"
    "one job has them.\n";
static const char cancel_note[] =
    "Pictures that are saved already stay. A cancelled job cannot be retried.\n";
static const char retry_note[] = "With --failed instead of an ID: every failed job.\n";
static const char priority_note[] =
    "N is 0 to 9, 9 the most urgent. The job must be waiting.\n";
static const char next_note[] =
    "Before all others, whatever their priority. Of several, the last named goes "
    "first.\n";
static const char pause_note[] =
    "Attempts that run go on, and jobs are accepted. Holds until resume, also over a\n"
    "restart of the broker.\n";
static const char resume_note[] =
    "With a name, that decoder takes work again after a drain; without, all do and a\n"
    "pause ends.\n";
static const char drain_note[] =
    "The decoder, or without a name each of them, finishes what it holds and is given "
    "no\n"
    "more until resume.\n";
static const char key_note[] =
    "For the allowed_keys of a broker on another machine. Made when there is none.\n";
static const char metrics_note[] = "In the text format of Prometheus.\n";
static const char top_note[] =
    "Refreshes as things happen; q or Ctrl-C leaves. When the output is no terminal, "
    "one\n"
    "page is printed. With --json an object a line, until it is ended.\n";

#define ANY_WORDS (LUNA_CTL_WORDS - 1)

const luna_command luna_commands[] = {
    {"submit", "", "Hand latents to Luna", submit_note, 0, 0, luna_ctl_submit,
     submit_flags, COUNT(submit_flags)},
    {"status", "", "What the broker is doing", NULL, 0, 0, luna_ctl_status, NULL, 0},
    {"jobs", "", "List jobs, newest first", jobs_note, 0, 0, luna_ctl_jobs, jobs_flags,
     COUNT(jobs_flags)},
    {"show", "ID", "One job with its files", NULL, 1, 1, luna_ctl_show, NULL, 0},
    {"wait", "ID", "Wait for a job's end", wait_note, 1, 1, luna_ctl_wait, NULL, 0},
    {"cancel", "ID...", "Cancel jobs", cancel_note, 1, ANY_WORDS, luna_ctl_cancel, NULL,
     0},
    {"retry", "ID...", "Put failed jobs back in the queue", retry_note, 0, ANY_WORDS,
     luna_ctl_retry, retry_flags, COUNT(retry_flags)},
    {"priority", "ID N", "Give a waiting job another priority", priority_note, 2, 2,
     luna_ctl_priority, NULL, 0},
    {"next", "ID", "Put a waiting job before all others", next_note, 1, 1, luna_ctl_next,
     NULL, 0},
    {"decoders", "", "List decoders", NULL, 0, 0, luna_ctl_decoders, NULL, 0},
    {"pause", "", "Start no more attempts", pause_note, 0, 0, luna_ctl_pause, NULL, 0},
    {"resume", "[DECODER]", "Go on after pause or drain", resume_note, 0, 1,
     luna_ctl_resume, NULL, 0},
    {"drain", "[DECODER]", "Give decoders no more work", drain_note, 0, 1, luna_ctl_drain,
     drain_flags, COUNT(drain_flags)},
    {"key", "", "Print this machine's public key", key_note, 0, 0, luna_ctl_key, NULL, 0},
    {"metrics", "", "Print the broker's counters", metrics_note, 0, 0, luna_ctl_metrics,
     NULL, 0},
    {"top", "", "Watch the broker live", top_note, 0, 0, luna_ctl_top, top_flags,
     COUNT(top_flags)},
};
const size_t luna_command_count = COUNT(luna_commands);

const luna_command *luna_command_find(const char *name)
{
    for (size_t i = 0; i < luna_command_count; i++)
        if (strcmp(luna_commands[i].name, name) == 0) return &luna_commands[i];
    return NULL;
}
