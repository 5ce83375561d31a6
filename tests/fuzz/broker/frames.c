//  frames.c - frames from any peer to a whole broker: loop, scheduler, store and sockets
//
//  An input is a list of frames for control and intake: sound messages of every type,
//  messages with bytes changed, and any bytes. After it the broker must still answer, and
//  everything it has sent must be a message. A job it has accepted stays known.
//
//  One broker serves many inputs, because a start costs as much as hundreds of them. It
//  is started anew after every 256, and LUNA_FUZZ_DIR/history holds the inputs since
//  then: run the program on those files, in their order, to see a finding again.

#include "fuzz/broker/peers.h"

//  ---- frames --------------------------------------------------------------------------

static const char *const words[] = {
    "decoder",    "producer",    "status",   "jobs",  "job",      "decoders",
    "metrics",    "pending",     "flux",     "sdxl",  "auto",     "png",
    "float16",    "loading",     "decoding", "saved", "received", "io",
    "bad_latent", "unknown_vae", "daemon",   "/out",  "failed",   ""};

//  Any message whose ids are known to the others. An encoded one, or NULL.
static void *make_message(fuzz_bytes *from, luna_msg_type type, const luna_id *ids,
                          size_t id_count, size_t *len)
{
    void *bytes = NULL;
    any_message message;
    maker m = {.from = *from, .ids = ids, .id_count = id_count, .words = words};
    m.word_count = sizeof words / sizeof words[0];
    memset(&message, 0, sizeof message);
    make_fields(&m, luna_msg_schema(type), &message);
    *from = m.from;
    if (luna_msg_pack(type, &message, &bytes, len) != LUNA_OK) bytes = NULL;
    luna_arena_free(&m.memory);
    return bytes;
}

//  Sent as it is, or with some of its bytes changed.
static void send_changed(fuzz_bytes *from, zsock_t *to, uint8_t *bytes, size_t len)
{
    if (fuzz_below(from, 8) == 7) {
        const size_t at = (size_t)fuzz_uint(from, 2);
        const luna_blob with = fuzz_blob(from, 8);
        for (size_t i = 0; i < with.len; i++)
            bytes[(at + i) % len] = ((const uint8_t *)with.data)[i];
    }
    (void)send_bytes(to, bytes, len, 0);
}

static void any_of(fuzz_bytes *from, peer *p)
{
    luna_id ids[JOBS + PEERS + 1];
    size_t len = 0;
    memcpy(ids, pool, sizeof pool);
    for (uint8_t i = 0; i < PEERS; i++) ids[JOBS + i] = peers[i].id;
    ids[JOBS + PEERS] = p->epoch;
    const luna_msg_type type = (luna_msg_type)fuzz_below(from, LUNA_MSG_COUNT);
    const bool intake = fuzz_below(from, 8) == 7;
    uint8_t *bytes = make_message(from, type, ids, JOBS + PEERS + 1, &len);
    if (bytes) send_changed(from, intake ? p->intake : p->control, bytes, len);
    free(bytes);
}

//  A job as a producer sends it, most of the time.
static void send_job(fuzz_bytes *from, peer *p)
{
    static const uint8_t latent[64];
    static const uint64_t deadlines_ms[8] = {0, 0, 0, 1, 1000, INT64_MAX, UINT64_MAX, 0};
    luna_msg_input input = luna_msg_input_default();
    luna_msg_job job = luna_msg_job_default();
    const uint64_t batch = 1 + fuzz_below(from, 3);
    input.dtype = luna_text_of("float16");
    input.shape = (luna_dims){.at = {batch, 4, 1, 1}, .count = 4};
    input.latent = (luna_blob){latent, 8 * (size_t)batch};
    job.id = pool[fuzz_below(from, JOBS)];
    job.client = p->id;
    job.created_ms = 1790000000000;
    job.priority = fuzz_below(from, 10);
    job.vae = luna_text_of(words[8 + fuzz_below(from, 3)]);
    job.deadline_ms = deadlines_ms[fuzz_below(from, 16) % 8];
    job.inputs.items = &input;
    job.inputs.count = 1;
    uint8_t *bytes = NULL;
    size_t len;
    CHECK(luna_msg_pack(LUNA_MSG_JOB, &job, (void **)&bytes, &len) == LUNA_OK);
    send_changed(from, fuzz_below(from, 16) == 15 ? p->control : p->intake, bytes, len);
    free(bytes);
}

static void send_hello(fuzz_bytes *from, peer *p)
{
    const luna_msg_vae serves[2] = {{luna_text_of("flux")}, {luna_text_of("sdxl")}};
    luna_msg_job_key running[2];
    luna_msg_hello hello = {.role = luna_text_of(words[fuzz_below(from, 8) == 7]),
                            .name = luna_text_of("dec"),
                            .instance = p->id};
    hello.vaes.items = serves;
    hello.vaes.count = (size_t)fuzz_below(from, 3);
    if (fuzz_bool(from)) hello.formats = luna_text_of("png webp heic");
    hello.running.items = running;
    hello.running.count = (size_t)fuzz_below(from, 3);
    for (size_t i = 0; i < 2; i++)
        running[i] =
            (luna_msg_job_key){pool[fuzz_below(from, JOBS)], fuzz_below(from, 4)};
    say(p->control, LUNA_MSG_HELLO, &hello);
    const luna_msg_ready ready = {.credit_jobs = fuzz_below(from, 5),
                                  .credit_bytes = 1 << 20,
                                  .maps_payload = fuzz_bool(from)};
    say(p->control, LUNA_MSG_READY, &ready);
}

static luna_msg_image image_at(uint64_t index)
{
    return (luna_msg_image){.index = index,
                            .path = luna_text_of("/out/a.png"),
                            .bytes = 9,
                            .sha256 = luna_text_of("ab12"),
                            .width = 8,
                            .height = 8};
}

//  What a decoder says of an attempt; of one it has, when the bytes are lucky.
static void report(fuzz_bytes *from, peer *p)
{
    const luna_msg_image images[4] = {image_at(0), image_at(1), image_at(2), image_at(3)};
    const luna_id id = pool[fuzz_below(from, JOBS)];
    const uint64_t attempt = 1 + fuzz_below(from, 3), kind = fuzz_below(from, 3);
    luna_msg_done done = {.id = id, .attempt = attempt, .epoch = p->epoch};
    luna_msg_progress progress = {.id = id, .attempt = attempt, .epoch = p->epoch};
    if (luna_id_is_nil(&p->epoch)) return;
    done.images.items = progress.images.items = images;
    done.images.count = progress.images.count = (size_t)fuzz_below(from, 5);
    progress.stage = luna_text_of(words[13 + fuzz_below(from, 4)]);
    const luna_msg_failed failed = {
        .id = id,
        .attempt = attempt,
        .epoch = p->epoch,
        .error = luna_text_of(words[17 + fuzz_below(from, 3)]),
        .retry = fuzz_bool(from)};
    if (kind == 0) say(p->control, LUNA_MSG_DONE, &done);
    if (kind == 1) say(p->control, LUNA_MSG_PROGRESS, &progress);
    if (kind == 2) say(p->control, LUNA_MSG_FAILED, &failed);
}

static void order(fuzz_bytes *from, peer *p)
{
    const luna_msg_type type =
        (luna_msg_type)(LUNA_MSG_CANCEL +
                        fuzz_below(from, LUNA_MSG_ANSWER - LUNA_MSG_CANCEL));
    const luna_msg_order message = {
        .re = fuzz_below(from, 3),
        .id = pool[fuzz_below(from, JOBS)],
        .failed = fuzz_below(from, 16) == 15,
        .priority = fuzz_below(from, 10),
        .next = fuzz_bool(from),
        .decoder = luna_text_of(fuzz_bool(from) ? "dec" : NULL)};
    say(p->control, type, &message);
}

static void query(fuzz_bytes *from, peer *p)
{
    const luna_msg_query message = {.re = fuzz_uint(from, 1),
                                    .what = luna_text_of(words[2 + fuzz_below(from, 5)]),
                                    .id = pool[fuzz_below(from, JOBS)],
                                    .limit = fuzz_below(from, 4)};
    say(p->control, LUNA_MSG_QUERY, &message);
}

static void raw(fuzz_bytes *from, peer *p)
{
    zsock_t *to = fuzz_bool(from) ? p->intake : p->control;
    for (uint64_t more = fuzz_below(from, 3); more > 0; more--) {
        const luna_blob part = fuzz_blob(from, 40);
        if (!send_bytes(to, part.data, part.len, ZMQ_SNDMORE)) return;
    }
    const luna_blob last = fuzz_blob(from, 200);
    (void)send_bytes(to, last.data, last.len, 0);
}

static void frame(fuzz_bytes *from)
{
    static void (*const kinds[])(fuzz_bytes *, peer *) = {
        any_of, send_job, send_hello, report, order,
        query,  raw,      send_job,   report, any_of};
    peer *p = &peers[fuzz_below(from, PEERS)];
    kinds[fuzz_below(from, sizeof kinds / sizeof kinds[0])](from, p);
    listen_to(p);
}

//  ---- after an input
//  --------------------------------------------------------------------

//  Both sockets have read what was sent to them: a message of the wrong type at intake is
//  refused to the observer, and a question is answered.
static void catch_up(void)
{
    char bytes[128] = "\x84\xa4luna\x01\xa4type\xa4ping\xa2id\xc4\x10";
    const size_t head = 22;
    memcpy(bytes + head, observer.id.byte, LUNA_ID_BYTES);
    memcpy(bytes + head + 16,
           "\xa6"
           "client\xc4\x10",
           9);
    memcpy(bytes + head + 25, observer.id.byte, LUNA_ID_BYTES);
    for (size_t i = 0; i < PEERS; i++) {
        const int64_t end_ms = luna_now_ms() + PATIENCE_MS;
        while (!send_bytes(peers[i].intake, bytes, head + 41, 0)) {
            check_patience(end_ms);
            (void)zmq_poll(NULL, 0, 1);
        }
        heard h = wait_for(LUNA_MSG_RECEIPT);
        forget(&h);
    }
    for (size_t i = 0; i < PEERS; i++) listen_to(&peers[i]);
}

//  The answer to a question of the observer's; others are passed over.
static heard ask(luna_msg_query question)
{
    static uint64_t re = 1000;
    question.re = ++re;
    say(observer.control, LUNA_MSG_QUERY, &question);
    for (;;) {
        heard h = wait_for(LUNA_MSG_ANSWER);
        if (h.message.ANSWER.re == re) return h;
        forget(&h);
    }
}

static void check_status(void)
{
    heard h = ask((luna_msg_query){.what = luna_text_of("status")});
    CHECK(h.message.ANSWER.status);
    forget(&h);
}

static void check_accepted(size_t i)
{
    if (!accepted[i]) return;
    heard h = ask((luna_msg_query){.what = luna_text_of("job"), .id = pool[i]});
    CHECK(!h.message.ANSWER.error.data && h.message.ANSWER.jobs.count == 1);
    CHECK(luna_id_compare(&h.message.ANSWER.jobs.items[0].id, &pool[i]) == 0);
    forget(&h);
}

//  So that the next input finds a broker without jobs and decoders.
static void clean_up(void)
{
    say(observer.control, LUNA_MSG_RESUME, &(luna_msg_order){0});
    for (size_t i = 0; i < JOBS; i++)
        if (accepted[i])
            say(observer.control, LUNA_MSG_CANCEL, &(luna_msg_order){.id = pool[i]});
    for (size_t i = 0; i < PEERS; i++)
        say(peers[i].control, LUNA_MSG_BYE,
            &(luna_msg_bye){.reason = luna_text_of("end")});
    check_status();
    for (size_t i = 0; i < PEERS; i++) {
        listen_to(&peers[i]);
        zsock_destroy(&peers[i].slot);
    }
}

//  ---- inputs
//  ---------------------------------------------------------------------------

int LLVMFuzzerInitialize(int *count, char ***argument)
{
    (void)count;
    (void)argument;
    const char *dir = getenv("LUNA_FUZZ_DIR");
    snprintf(home, sizeof home, "%.80s/b-XXXXXX", dir ? dir : "/dev/shm");
    CHECK(mkdtemp(home));
    setenv("LUNA_HOME", home, 1);
    setenv("LUNA_HTTP_LISTEN", "off", 1);
    setenv("LUNA_STORE_RESERVE", "0", 1);
    setenv("LUNA_LEASE_BACKOFF", "1ms", 1);
    setenv("LUNA_LEASE_PING", "500ms", 1);
    setenv("LUNA_BROKER_STOP_GRACE", "0", 1);
    setenv("LUNA_LIMITS_MAX_JOB_BYTES", "64KiB", 1);
    zsys_handler_set(NULL);
    zsys_init();
    atexit(remove_home);
    return 0;
}

//  An inproc name may still lead to the socket that is going; so may the one in the file
//  system, but that one can be tried again.
static void wait_until_ready(void)
{
    const int64_t end_ms = luna_now_ms() + PATIENCE_MS;
    const luna_id id = peer_id(98);
    bool ready = false;
    while (!ready) {
        check_patience(end_ms);
        peer p = {.id = id};
        heard h;
        connect_one(&p.control, ZMQ_DEALER, settings.control, &id);
        say(p.control, LUNA_MSG_PING, &(luna_msg_ping){0});
        zmq_pollitem_t item = {.socket = zsock_resolve(p.control), .events = ZMQ_POLLIN};
        (void)zmq_poll(&item, 1, 1000);
        ready = hear(p.control, &h);
        if (ready) forget(&h);
        close_peer(&p);
    }
}

static void open_all(void)
{
    start_broker();
    wait_until_ready();
    for (uint8_t i = 0; i < PEERS; i++) open_peer(&peers[i], (uint8_t)(i + 1));
    open_peer(&observer, 99);
    check_status();
}

static void close_all(void)
{
    for (size_t i = 0; i < PEERS; i++) close_peer(&peers[i]);
    close_peer(&observer);
    stop_broker();
    remove_home();
    CHECK(mkdir(home, 0700) == 0);
}

static void keep_history(const uint8_t *data, size_t len)
{
    char path[PATH_BYTES];
    const char *dir = getenv("LUNA_FUZZ_DIR");
    if (!dir) return;
    snprintf(path, sizeof path, "%.200s/history", dir);
    (void)mkdir(path, 0700);
    snprintf(path, sizeof path, "%.200s/history/%03u", dir, (unsigned)(inputs % ROUND));
    FILE *file = fopen(path, "wb");
    CHECK(file && fwrite(data, 1, len, file) == len && fclose(file) == 0);
}

//  Ids no input before had.
static void new_pool(void)
{
    for (size_t i = 0; i < JOBS; i++) {
        pool[i] = (luna_id){{0x01, 0x93, [6] = 0x70, [8] = 0x80, [15] = (uint8_t)i}};
        memcpy(pool[i].byte + 9, &inputs, 6);
        accepted[i] = false;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    fuzz_bytes from = {.at = data, .left = len};
    if (inputs % ROUND == 0) {
        if (inputs > 0) close_all();
        open_all();
    }
    keep_history(data, len);
    new_pool();
    for (int i = 0; i < FRAMES && from.left > 0; i++) frame(&from);
    catch_up();
    check_status();
    for (size_t i = 0; i < JOBS; i++) check_accepted(i);
    clean_up();
    inputs++;
    return 0;
}
