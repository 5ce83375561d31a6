# Luna. `make help` lists the targets; every product lands in $(BUILD).

VERSION  := 0.1.0
BUILD    ?= build
PREFIX   ?= /usr/local
LIBDIR   ?= $(PREFIX)/lib
CC       ?= cc
PYTHON   ?= /usr/bin/python3
CPU      ?= 1
# The CUDA backend: 1 to build it, 0 not to; by itself where there are nvcc and cuDNN.
CUDA_HOME  ?= /usr/local/cuda
NVCC       ?= $(CUDA_HOME)/bin/nvcc
CUDNN_H    := $(wildcard $(CUDA_HOME)/include/cudnn.h /usr/include/cudnn.h /usr/include/*/cudnn.h)
CUDA       ?= $(if $(and $(wildcard $(NVCC)),$(CUDNN_H)),1,0)
# sm_86 and sm_89 run the code for sm_80.
CUDA_ARCHS ?= 75 80 90 100 120
OPT      ?= -O2
SANITIZE ?=
V        ?=
T        ?=
POINTS   ?=
KILLS    ?= 300
MINUTES  ?= 10
SOAK     ?=
# Two compilers on two cores, unless make was told otherwise.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

# ---- what must be installed: Debian 12 packages, the README says what for ------
DEPS_BUILD := gcc libc6-dev pkg-config libzmq3-dev libczmq-dev libmsgpack-dev libsqlite3-dev \
    libmicrohttpd-dev libjansson-dev libxxhash-dev libssl-dev libvips-dev \
    libdeflate-dev libjpeg62-turbo-dev
DEPS_TEST  := libcmocka-dev python3 python3-pytest python3-pytest-xdist python3-msgpack python3-zmq python3-pil \
    python3-numpy curl pngcheck libimage-exiftool-perl webp zlib1g-dev
DEPS_FUZZ  := clang libclang-rt-dev python3 zlib1g-dev
DEPS_BENCH := python3 python3-msgpack python3-zmq python3-pil python3-numpy beanstalkd redis-server nats-server

# ---- flags ---------------------------------------------------------------------
WARN     := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wvla -Wstrict-prototypes \
    -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Werror
CPPFLAGS += -I. -D_DEFAULT_SOURCE -D_POSIX_C_SOURCE=200809L -DLUNA_VERSION='"$(VERSION)"' \
    -DLUNA_VAE_CPU=$(CPU)
CFLAGS   += -std=c17 $(OPT) -g $(WARN) -fPIC -fvisibility=hidden -pthread $(SANITIZE)
LDFLAGS  += -pthread $(SANITIZE)
# Asked only when a recipe runs: `make deps` must work before pkg-config is there.
VIPS_INC  = $(patsubst -I%,-isystem %,$(shell pkg-config --cflags-only-I vips))

# ---- CUDA: a plugin, so that the programs need nothing of it -----------------------
CUDA_PLUGIN := $(BUILD)/lib/luna-cuda.so
CUDA_SRC    := $(sort $(wildcard decoder/vae/cuda/*.c)) common/file.c common/dtype.c \
    decoder/vae/backend.c decoder/vae/graph.c decoder/vae/memory_budget.c decoder/vae/memory_plan.c
CUDA_OBJ    := $(patsubst %.c,$(BUILD)/obj/%.o,$(CUDA_SRC)) \
    $(patsubst %.cu,$(BUILD)/obj/%.cu.o,$(sort $(wildcard decoder/vae/cuda/*.cu)))
CUDA_LIBS   := $(addprefix -L$(CUDA_HOME)/,lib64 lib) -lcudnn -lcublasLt -lcudart
NVCC_FLAGS  := -O3 -std=c++17 -I. -Xcompiler=-fPIC,-fvisibility=hidden,-fno-exceptions,-fno-threadsafe-statics,-Wall,-Werror \
    $(foreach arch,$(patsubst 90,90a,$(CUDA_ARCHS)),-gencode arch=compute_$(arch),code=sm_$(arch)) \
    -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))

# ---- rooms: a folder is a room, its sources an archive ---------------------------
ROOMS    := common proto broker/store broker/http broker producer/luna producer/lunactl \
    decoder/vae decoder/vae/cpu decoder/vae/tool decoder/image decoder/sink decoder/worker
sources   = $(sort $(wildcard $(1)/*.c))
objects   = $(patsubst %.c,$(BUILD)/obj/%.o,$(foreach room,$(1),$(call sources,$(room))))
archive   = $(BUILD)/room/$(subst /,-,$(1)).a
archives  = $(foreach room,$(1),$(call archive,$(room)))

VAE_ROOMS     := decoder/vae $(if $(filter 1,$(CPU)),decoder/vae/cpu)
BROKER_ROOMS  := broker broker/http broker/store proto common
DECODER_ROOMS := decoder/worker decoder/image decoder/sink $(VAE_ROOMS) proto common
LUNA_ROOMS    := producer/luna proto common

# luna-vae builds alone: a C compiler and one backend, nothing else installed.
VAE_COMMON := $(patsubst %,common/%.c,err clock log file dtype utf8 json_text program \
    safetensors safetensors_header safetensors_write latent_file)
VAE_LIBS   := -ldl -lm
ZMQ_LIBS   := -lczmq -lzmq -lmsgpackc -lxxhash
BROKER_LIBS   := $(ZMQ_LIBS) -lsqlite3 -lmicrohttpd -ljansson -lcrypto
IMAGE_LIBS     = $(shell pkg-config --libs vips) -ldeflate -ljpeg
DECODER_LIBS   = $(ZMQ_LIBS) -lcrypto $(IMAGE_LIBS) $(VAE_LIBS)

MAN_PAGES := $(wildcard broker/*.8 decoder/*.8 decoder/vae/*.1 producer/man/*.1 producer/man/*.3)
COMFYUI_FILES = $(shell cd producer/comfyui && find * -type f ! -name '*.pyc')
PROGRAMS := $(addprefix $(BUILD)/bin/,luna-broker luna-decoder lunactl luna-vae)
SONAME   := libluna.so.0
LIBLUNA  := $(BUILD)/lib/$(SONAME)

.PHONY: all help deps run test unit system bench install clean luna-vae asan tsan asan-system tsan-system check-deps fuzz bench-broker bench-encode
.SUFFIXES:
.SECONDARY:

all: check-deps
	@$(MAKE) --no-print-directory programs
.PHONY: programs
programs: $(PROGRAMS) $(LIBLUNA) $(if $(filter 1,$(CUDA)),$(CUDA_PLUGIN))
luna-vae: $(BUILD)/bin/luna-vae $(if $(filter 1,$(CUDA)),$(CUDA_PLUGIN))

help:
	@echo "make            build everything into $(BUILD)/"
	@echo "make run        install what is missing, build, decode three photographs, serve until Ctrl-C"
	@echo "make test       install what is missing, build, run every test  (T=pattern: only these)"
	@echo "make deps       install the missing Debian packages, and nothing when all are there"
	@echo "make bench      measure Luna beside its alternatives: the store, the hand-over, the broker"
	@echo "make bench-encode  every format and level beside Pillow, two minutes  (FORMATS='avif jxl': only these)"
	@echo "make bench-broker  the broker beside beanstalkd, Redis and NATS; four minutes"
	@echo "                (MEMORY_JOBS=1000: and its memory with so many 64 MiB jobs; BENCH_FLAGS='--help')"
	@echo "make bench-vae  a decode on the CPU beside PyTorch  (PYTHON=one that has torch)"
	@echo "make bench-comfyui  the node in a real ComfyUI beside VAEDecode and SaveImage"
	@echo "                (COMFYUI_DIR=, COMFYUI_PYTHON=: a Python that has its requirements)"
	@echo "make fault      a fault at every step to the disk, then what must hold  (POINTS='--plan cut --sample 99')"
	@echo "make soak       kill everything at random under load  (KILLS=$(KILLS) MINUTES=$(MINUTES) SOAK=--power)"
	@echo "make race       four processes save under one name  (RACE=$(RACE) files)"
	@echo "make luna-vae   the VAE tool alone: a C compiler is all it takes (CPU=0: plain and slow)"
	@echo "                CUDA=1: with the GPU backend, by itself where $(NVCC) is; CUDA_ARCHS='90' for one card"
	@echo "make asan tsan  the unit tests under the sanitizers; asan-system, tsan-system: the others"
	@echo "make fuzz       random inputs for every parser, the store, the scheduler and the broker, under the"
	@echo "                sanitizers; needs clang  (FUZZ_RUNS=100000 FUZZ_S=60 each at most; T=pattern)"
	@echo "make test-gpu   the GPU backend on this machine's card: kernels, decodes, the time of each step"
	@echo "make bench-gpu  the GPU decode beside PyTorch's, on one card in one run  (BENCH_FLAGS='--help')"
	@echo "make gpu-chain  packs a whole Luna for a GPU machine that has CUDA and cuDNN only; where the archive is,"
	@echo "                bench-gpu has a second half: broker, decoder, encode and files  (CHAIN_FLAGS='--help')"
	@echo "make install    DESTDIR= PREFIX=$(PREFIX)"

# `make V=1` shows whole commands.
say = $(if $(V),,@echo '$(1) $(2)';)
# A change of flags rebuilds everything.
FLAGS_TEXT := $(CC) $(CPPFLAGS) $(CFLAGS)
FLAGS := $(BUILD)/flags
$(shell mkdir -p $(BUILD); echo '$(subst ','\'',$(FLAGS_TEXT))' | cmp -s - $(FLAGS) || echo '$(subst ','\'',$(FLAGS_TEXT))' > $(FLAGS))

$(BUILD)/obj/decoder/image/%.o $(BUILD)/obj/decoder/worker/%.o: CPPFLAGS += $(VIPS_INC)
$(addprefix $(BUILD)/obj/,decoder/image/png_filter.o decoder/vae/latents.o common/dtype.o): CFLAGS += -O3
$(BUILD)/obj/%.o: %.c $(FLAGS)
	@mkdir -p $(@D)
	$(call say,cc,$<)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

# The CPU backend's kernels, once for each instruction set. Vectors never cross a call: how
# they would be passed does not matter.
KERNELS := $(BUILD)/obj/decoder/vae/cpu/kernels_
$(KERNELS)%.o: CFLAGS += -O3 -ffp-contract=fast -Wno-psabi
ifeq ($(shell uname -m),x86_64)
$(KERNELS)avx2.o: CFLAGS += -mavx2 -mfma
$(KERNELS)avx512.o: CFLAGS += -mavx512f -mfma
endif
ifneq ($(PLAIN_MATHS),)
$(KERNELS)%.o $(addprefix $(BUILD)/obj/decoder/vae/,attention.o conv_plain.o elementwise.o group_norm.o): \
    CFLAGS += -O3 -fno-sanitize=thread
endif
$(BUILD)/obj/decoder/vae/cuda/%.o: CPPFLAGS += -isystem $(CUDA_HOME)/include
NVCC_TEXT := $(BUILD)/nvcc-flags
$(shell echo '$(NVCC_FLAGS)' | cmp -s - $(NVCC_TEXT) || echo '$(NVCC_FLAGS)' > $(NVCC_TEXT))
$(BUILD)/obj/%.cu.o: %.cu $(NVCC_TEXT)
	@mkdir -p $(@D)
	$(call say,nvcc,$<)$(NVCC) $(NVCC_FLAGS) -MMD -MP -c $< -o $@
$(CUDA_PLUGIN): $(CUDA_OBJ)
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(LDFLAGS) -shared -Wl,--no-undefined -Wl,--exclude-libs,ALL -o $@ $^ $(CUDA_LIBS) -lm

define room_rule
$(call archive,$(1)): $(call objects,$(1))
	@mkdir -p $$(@D); rm -f $$@
	@ar rcs $$@ $$^
endef
$(foreach room,$(ROOMS),$(eval $(call room_rule,$(room))))

$(BUILD)/bin/luna-broker: $(call archives,$(BROKER_ROOMS))
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(LDFLAGS) -o $@ -Wl,--start-group $^ -Wl,--end-group $(BROKER_LIBS)
$(BUILD)/bin/luna-decoder: $(call archives,$(DECODER_ROOMS))
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(LDFLAGS) -o $@ -Wl,--start-group $^ -Wl,--end-group $(DECODER_LIBS)
$(BUILD)/bin/luna-vae: $(patsubst %.c,$(BUILD)/obj/%.o,$(VAE_COMMON)) $(call objects,$(VAE_ROOMS) decoder/vae/tool)
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(LDFLAGS) -o $@ $^ $(VAE_LIBS)
$(LIBLUNA): $(call archives,$(LUNA_ROOMS)) producer/luna/libluna.map
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(LDFLAGS) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=producer/luna/libluna.map \
	    -Wl,--no-undefined -o $@ -Wl,--whole-archive $(call archives,producer/luna) -Wl,--no-whole-archive \
	    -Wl,--start-group $(call archives,proto common) -Wl,--end-group -Wl,--as-needed $(ZMQ_LIBS)
	@ln -sf $(SONAME) $(BUILD)/lib/libluna.so
$(BUILD)/bin/lunactl: $(call archives,producer/lunactl common) $(LIBLUNA)
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(LDFLAGS) -o $@ $(call archives,producer/lunactl common) -L$(BUILD)/lib -lluna \
	    -Wl,-rpath,'$$ORIGIN/../lib' -ljansson -lzmq -lm

# ---- tests: tests/unit/<room>/test_x.c is one program, linked with its room -------
UNIT_SRC   := $(sort $(wildcard tests/unit/*/test_*.c))
UNIT       := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(UNIT_SRC))
ROOMS_common   := common
ROOMS_proto    := proto common
ROOMS_store    := broker/store proto common
ROOMS_broker   := $(BROKER_ROOMS)
ROOMS_http     := broker/http proto common
ROOMS_vae      := $(VAE_ROOMS) common
ROOMS_image    := decoder/image common
ROOMS_sink     := decoder/sink proto common
ROOMS_worker   := $(DECODER_ROOMS)
ROOMS_producer := producer/lunactl producer/luna proto common
LIBS_common   := -lzmq
LIBS_proto    := -lmsgpackc -lxxhash
LIBS_store    := -lsqlite3 -lmsgpackc -lxxhash
LIBS_broker   := $(BROKER_LIBS)
LIBS_http     := $(BROKER_LIBS)
LIBS_vae      := $(VAE_LIBS)
LIBS_image     = $(IMAGE_LIBS) -lz
LIBS_sink     := -lcrypto
LIBS_worker    = $(DECODER_LIBS)
LIBS_producer := $(ZMQ_LIBS) -ljansson

define unit_rule
$(BUILD)/unit/$(1)/%: tests/unit/$(1)/%.c $(call archives,$(ROOMS_$(1))) $(FLAGS)
	@mkdir -p $$(@D)
	$$(call say,test,$$@)$$(CC) $$(CPPFLAGS) $(if $(filter image worker,$(1)),$$(VIPS_INC)) -Itests/unit $$(CFLAGS) -MMD -MP $$(LDFLAGS) \
	    -o $$@ $$< -Wl,--start-group $(call archives,$(ROOMS_$(1))) -Wl,--end-group $$(LIBS_$(1)) -lcmocka -lm
endef
$(foreach room,common proto store broker http vae image sink worker producer,$(eval $(call unit_rule,$(room))))

# A GPU backend for machines without a GPU, that fails as told, and an empty driver for it.
FAULTY := $(BUILD)/test/luna-faulty.so
$(FAULTY): tests/plugin/faulty.c $(BUILD)/obj/decoder/vae/cuda/plugin.o $(call archives,$(VAE_ROOMS) common) $(FLAGS)
	@mkdir -p $(@D)/driver
	$(call say,test,$@)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -shared -o $@ $(filter %.c %.o,$^) \
	    -Wl,--start-group $(call archives,$(VAE_ROOMS) common) -Wl,--end-group -lm
	@echo | $(CC) -shared -x c - -o $(@D)/driver/libcuda.so.1
faulty: $(FAULTY)
.PHONY: faulty
# ---- lanes: the portable kernels on the processor, where there is CUDA but no card ----
# (by_wgmma is skipped there; test_kernel_convolution needs the libraries.)
LANES_CU    := conv_last conv_mma layout norm norm_parts pixels pointwise softmax
LANES_OBJ   := $(LANES_CU:%=$(BUILD)/lanes/%.cu.o) $(BUILD)/lanes/lanes.o $(BUILD)/lanes/runtime.o
LANES       := $(patsubst %,$(BUILD)/lanes/test_kernel_%,fused last layout maps norms parts pixels softmax)
LANES_FLAGS := -std=c++17 -O2 -g -Itests/gpu/lanes -I. -isystem $(CUDA_HOME)/include -Wall -Werror \
    -Wno-unknown-pragmas -Wno-class-memaccess -Wno-sign-compare -MMD -MP
$(BUILD)/lanes/%.cu.o: decoder/vae/cuda/%.cu tests/gpu/lanes/translate
	@mkdir -p $(@D)
	@tests/gpu/lanes/translate $< >$(@:.o=.cpp)
	$(call say,lanes,$<)$(CXX) $(LANES_FLAGS) -include tests/gpu/lanes/lanes.h -c $(@:.o=.cpp) -o $@
$(BUILD)/lanes/%.o: tests/gpu/lanes/%.cpp
	@mkdir -p $(@D)
	$(call say,lanes,$<)$(CXX) $(LANES_FLAGS) -c $< -o $@
$(BUILD)/lanes/test_kernel_%: tests/gpu/test_kernel_%.c $(LANES_OBJ) $(BUILD)/obj/decoder/vae/cuda/conv_fused.o \
    $(call archives,$(VAE_ROOMS) common) $(FLAGS)
	$(call say,test,$@)$(CC) $(CPPFLAGS) -DLUNA_LANES -isystem $(CUDA_HOME)/include -Itests/gpu $(CFLAGS) -MMD -MP -c $< -o $@.o
	@$(CXX) $(LDFLAGS) -o $@ $@.o $(filter %.o,$^) -Wl,--start-group $(call archives,$(VAE_ROOMS) common) -Wl,--end-group \
	    $(VAE_LIBS) -lcmocka
.SECONDARY: $(LANES_OBJ)

UNIT_ALL := $(filter $(BUILD)/unit/%,$(UNIT)) $(if $(filter 1,$(CUDA)),$(LANES))
unit: $(UNIT) $(UNIT_ALL)
	@LUNA_TEST_DATA=tests/data tests/unit/run $(if $(T),$(foreach u,$(UNIT_ALL),$(if $(findstring $(T),$u),$u)),$(UNIT_ALL))
# Stands in for a file that is slow to open, in a program under test.
GATE := $(BUILD)/test/gate.so
$(GATE): tests/system/preload/gate.c $(FLAGS)
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(CPPFLAGS) $(CFLAGS) -shared -o $@ $<
# Two at a time: most of them wait for something. (One by one when only some are wanted.)
SYSTEM_JOBS ?= 2
system: programs $(FAULTY) $(GATE)
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/system $(if $(T),-k '$(T)',-n $(SYSTEM_JOBS))
test:
	@$(MAKE) --no-print-directory deps DEPS='$(DEPS_BUILD) $(DEPS_TEST)'
	@$(MAKE) --no-print-directory programs $(UNIT_ALL) faulty $(if $(filter 1,$(CUDA)),gpu-programs)
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory system
	@$(MAKE) --no-print-directory fault-tests
# A finding ends the process that has it, so a test fails; the reports lie in $(BUILD)/reports.
# `make tsan` also watches the decode's arithmetic, which then takes a hundred times as long:
# tsan-system, which decodes hundreds of pictures, leaves it out (PLAIN_MATHS).
SANITIZERS_asan := address,undefined
SANITIZERS_tsan := thread
SANITIZERS_tsan-system := thread
SYSTEM_asan := asan
SYSTEM_tsan := tsan-system
sanitized = $(MAKE) --no-print-directory BUILD=$(BUILD)/$(1) OPT=-O1 CUDA=0 PLAIN_MATHS=$(filter tsan-system,$(1)) \
    SANITIZE='-fsanitize=$(SANITIZERS_$(1)) -fno-omit-frame-pointer'
asan tsan:
	@+$(call sanitized,$@) unit
asan-system tsan-system: programs
	@+$(call sanitized,$(SYSTEM_$(@:-system=))) programs faulty
	@rm -rf $(BUILD)/reports; mkdir -p $(BUILD)/reports
	@reports=log_path=$(abspath $(BUILD)/reports)/report:abort_on_error=1; \
	 ASAN_OPTIONS=$$reports UBSAN_OPTIONS=$$reports:halt_on_error=1:print_stacktrace=1 \
	 TSAN_OPTIONS=$$reports:halt_on_error=1:suppressions=$(abspath tests/unit/tsan.supp) \
	 LUNA_TEST_LIBRARY=$(abspath $(LIBLUNA)) LUNA_BIN=$(abspath $(BUILD)/$(SYSTEM_$(@:-system=))/bin) \
	 LUNA_SANITIZED=$(@:-system=) $(PYTHON) -m pytest -q -rs -p no:cacheprovider tests/system $(if $(T),-k '$(T)')
	@! ls $(BUILD)/reports/* 2>/dev/null

# ---- fuzzing: tests/fuzz/<room>/x.c is one libFuzzer program, linked with its room --
FUZZ_CC   ?= clang
FUZZ_RUNS ?= 100000
FUZZ_S    ?= 60
FUZZ_SRC  := $(sort $(wildcard tests/fuzz/*/*.c))
FUZZ_ALL  := $(patsubst tests/fuzz/%.c,%,$(FUZZ_SRC))
FUZZ_PICK := $(if $(T),$(foreach f,$(FUZZ_ALL),$(if $(findstring $(T),$f),$f)),$(FUZZ_ALL))
fuzz:
	@$(MAKE) --no-print-directory deps DEPS='$(DEPS_BUILD) $(DEPS_FUZZ)'
	@$(MAKE) --no-print-directory fuzz-run
fuzz-run:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=$(FUZZ_CC) OPT=-O1 \
	    SANITIZE='-fsanitize=fuzzer-no-link$(,)address$(,)undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -Wno-sign-conversion' fuzzers
	@FUZZ_RUNS=$(FUZZ_RUNS) FUZZ_S=$(FUZZ_S) PYTHON=$(PYTHON) tests/fuzz/run $(BUILD)/fuzz $(FUZZ_PICK)
# A few seconds of those that give the same each time, where there is a clang for it.
FUZZ_TIMED := broker/frames store/open producer/outbox
FUZZ_PROBE := int LLVMFuzzerTestOneInput(const char *d, long n) { return d == 0 && n; }
fuzz-sample:
	@if echo '$(FUZZ_PROBE)' | $(FUZZ_CC) -x c - -fsanitize=fuzzer,address -o /dev/null 2>/dev/null; then \
	    FUZZ_SEED=1 FUZZ_FRESH=1 $(MAKE) --no-print-directory fuzz-run FUZZ_RUNS=3000 FUZZ_S=10 \
	        FUZZ_PICK='$(filter-out $(FUZZ_TIMED),$(FUZZ_PICK))'; \
	else echo "fuzz: skipped, there is no clang with libFuzzer (make fuzz installs it)"; fi
.PHONY: fuzz-run fuzz-sample fuzzers
fuzzers: $(addprefix $(BUILD)/target/,$(FUZZ_PICK))

define fuzz_rule
$(BUILD)/target/$(1)/%: tests/fuzz/$(1)/%.c $(call archives,$(ROOMS_$(1))) $(FLAGS)
	@mkdir -p $$(@D)
	$$(call say,fuzz,$$@)$$(CC) $$(CPPFLAGS) $(if $(filter image worker,$(1)),$$(VIPS_INC)) -Itests $$(CFLAGS) -MMD -MP $$(LDFLAGS) \
	    -fsanitize=fuzzer -o $$@ $$< -Wl,--start-group $(call archives,$(ROOMS_$(1))) -Wl,--end-group $$(LIBS_$(1)) -lm
endef
$(foreach room,common proto store broker http vae image sink worker producer,$(eval $(call fuzz_rule,$(room))))

, := ,

# ---- GPU: tests and a profile that need a card; CI only compiles them -----------------
GPU_SRC := $(sort $(wildcard tests/gpu/*.c))
GPU     := $(patsubst tests/gpu/%.c,$(BUILD)/gpu/%,$(GPU_SRC))
GPU_OBJ := $(filter-out %/cuda/plugin.o,$(CUDA_OBJ))
$(BUILD)/gpu/%: tests/gpu/%.c $(GPU_OBJ) $(call archives,$(VAE_ROOMS) common) $(FLAGS)
	@mkdir -p $(@D)
	$(call say,test,$@)$(CC) $(CPPFLAGS) -isystem $(CUDA_HOME)/include -Itests/gpu $(CFLAGS) -MMD -MP $(LDFLAGS) -o $@ $< $(GPU_OBJ) \
	    -Wl,--start-group $(call archives,$(VAE_ROOMS) common) -Wl,--end-group $(CUDA_LIBS) $(VAE_LIBS) -lcmocka
gpu-programs: $(GPU) $(BUILD)/bin/luna-vae $(CUDA_PLUGIN)
test-gpu: gpu-programs
	@BENCH=no tests/gpu/run $(BUILD)
bench-gpu: gpu-programs
	@cd tests/gpu && LUNA_BIN=$(abspath $(BUILD)/bin) LUNA_GPU_BIN=$(abspath $(BUILD)/gpu) python3 bench.py $(BENCH_FLAGS)
	@[ ! -e $(BUILD)/gpu-chain/luna.tar.xz ] || python3 tests/gpu/chain --bundle $(BUILD)/gpu-chain/luna.tar.xz $(CHAIN_FLAGS)
# A whole Luna in one archive, for a GPU machine that has none of its libraries.
gpu-chain: programs
	@tests/gpu/collect $(BUILD) $(BUILD)/gpu-chain/luna.tar.xz
.PHONY: gpu-programs test-gpu bench-gpu gpu-chain

# ---- faults: a disk that fails as planned, and everything killed at random ----------
FAULTFS_SRC := $(call sources,tests/fault/preload)
FAULTFS     := $(BUILD)/fault/faultfs.so
$(FAULTFS): $(FAULTFS_SRC) $(wildcard tests/fault/preload/*.h) $(FLAGS)
	@mkdir -p $(@D)
	$(call say,link,$@)$(CC) $(CPPFLAGS) $(CFLAGS) -shared -o $@.new $(FAULTFS_SRC) && mv $@.new $@
faultfs: programs $(FAULTFS)
fault: faultfs
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/fault/sweep.py broker $(POINTS)
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/fault/sweep.py decoder $(POINTS)
RACE ?= 10000
race: $(BUILD)/unit/sink/test_race
	@folder=$$(mktemp -d -p $(BUILD)) && (cd $$folder && LUNA_RACE_FILES=$(RACE) $(abspath $<)); \
	    code=$$?; rm -rf $$folder; exit $$code
soak: faultfs
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/fault/soak.py --kills $(KILLS) --minutes $(MINUTES) $(SOAK)
fault-tests: faultfs
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) -m pytest -q -p no:cacheprovider tests/fault $(if $(T),-k '$(T)')
.PHONY: faultfs fault soak race fault-tests

$(BUILD)/bench/store_bench: tests/bench/store_bench.c $(call archives,broker/store proto common) $(FLAGS)
	@mkdir -p $(@D)
	$(call say,bench,$@)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< -Wl,--start-group \
	    $(call archives,broker/store proto common) -Wl,--end-group $(LIBS_store) -lm
$(BUILD)/bench/encode_bench: tests/bench/encode_bench.c $(call archives,decoder/image common) $(FLAGS)
	@mkdir -p $(@D)
	$(call say,bench,$@)$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< -Wl,--start-group \
	    $(call archives,decoder/image common) -Wl,--end-group $(LIBS_image) -lm
bench-encode: $(BUILD)/bench/encode_bench
	@$(PYTHON) tests/bench/encode_bench.py $< $(FORMATS)
bench: programs $(BUILD)/bench/store_bench
	@folder=$$(mktemp -d -p $(BUILD)) && $(BUILD)/bench/store_bench $$folder 1 4 16; rm -rf $$folder
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/bench/bench.py
	@$(MAKE) --no-print-directory bench-encode
	@$(MAKE) --no-print-directory bench-broker
# What cannot be installed is left out. The trap also removes what a killed run leaves.
MEMORY_JOBS ?= 0
bench-broker: programs
	@docker/deps.sh $(DEPS_BENCH) || echo "bench-broker goes on without them" >&2
	@folder=$$(mktemp -d -p $(BUILD)); trap 'rm -rf "$$folder"' EXIT; LUNA_BIN=$(abspath $(BUILD)/bin) \
	    $(PYTHON) tests/bench/broker_bench.py --folder $$folder --memory-jobs $(MEMORY_JOBS) $(BENCH_FLAGS)
# Needs torch and safetensors: PYTHON=V/bin/python of a venv that has them.
bench-vae: luna-vae
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/bench/vae_bench.py $(BENCH_FLAGS)
.PHONY: bench-vae

bench-comfyui: programs
	@LUNA_BIN=$(abspath $(BUILD)/bin) $(PYTHON) tests/bench/comfyui_bench.py $(BENCH_FLAGS)
.PHONY: bench-comfyui

# ---- install and run --------------------------------------------------------------
DEPS ?= $(DEPS_BUILD)
deps:
	@docker/deps.sh $(DEPS)
check-deps:
	@docker/deps.sh --check $(DEPS_BUILD)
run:
	@$(MAKE) --no-print-directory deps
	@$(MAKE) --no-print-directory programs
	@LUNA_BIN=$(abspath $(BUILD)/bin) tests/demo.sh
install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include share/man/man1 share/man/man3 share/man/man8 \
	    lib/systemd/system lib/sysusers.d) $(DESTDIR)$(LIBDIR)/pkgconfig
	install -m 755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(LIBLUNA) $(DESTDIR)$(LIBDIR)/$(SONAME).$(VERSION)
	ln -sf $(SONAME).$(VERSION) $(DESTDIR)$(LIBDIR)/$(SONAME)
	$(if $(filter 1,$(CUDA)),install -D -m 755 $(CUDA_PLUGIN) $(DESTDIR)$(PREFIX)/lib/luna-cuda.so)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libluna.so
	install -m 644 producer/luna/luna.h $(DESTDIR)$(PREFIX)/include
	sed 's#@PREFIX@#$(PREFIX)#; s#@LIBDIR@#$(LIBDIR)#; s#@VERSION@#$(VERSION)#' producer/luna/luna.pc.in \
	    >$(DESTDIR)$(LIBDIR)/pkgconfig/luna.pc
	for unit in broker/luna-broker.service decoder/luna-decoder@.service; do \
	    sed 's#/usr/bin/#$(PREFIX)/bin/#g' $$unit >$(DESTDIR)$(PREFIX)/lib/systemd/system/$$(basename $$unit); done
	install -D -m 644 producer/lunactl/lunactl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/lunactl
	install -m 644 broker/luna.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/luna.conf
	for page in $(MAN_PAGES); do install -m 644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}; done
	for file in $(COMFYUI_FILES); do \
	    install -D -m 644 producer/comfyui/$$file $(DESTDIR)$(PREFIX)/share/luna/comfyui/$$file; done
clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
