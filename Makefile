# The two commands of the README, and a few for those who work on paceline. CMake does the building.
BUILD ?= build/release
ASAN  ?= build/asan
FUZZ  ?= build/fuzz
FUZZERS = $(basename $(notdir $(wildcard tests/fuzz/fuzz_*.c)))
JOBS  ?= $(shell nproc)

.PHONY: all demo test programs tests tests-asan tests-fuzz fuzzers fuzz format clean
all: programs

demo: setup-demo programs
	tools/demo.sh $(BUILD)

test: setup-test tests tests-asan tests-fuzz
	tools/run-tests.sh $(BUILD) $(ASAN) $(FUZZ)

# What is missing is named, asked for (not as root, not without a terminal) and installed.
setup-%:
	@tools/setup.sh $*

# $(call configure,PRESET,FOLDER,OPTIONS): prints nothing unless it fails
define configure
@log=$$(mktemp) && { cmake --preset $(1) -B $(2) $(3) >$$log 2>&1 || { cat $$log; rm -f $$log; exit 1; }; rm -f $$log; }
endef

# The two programs need no test framework; a folder that has the tests keeps them.
programs:
	$(call configure,release,$(BUILD),$(if $(wildcard $(BUILD)/CMakeCache.txt),,-DPACELINE_TESTS=OFF))
	cmake --build $(BUILD) -j $(JOBS) $(if $(TARGETS),--target $(TARGETS))

demo: TARGETS = paceline paceline-runner

tests:
	$(call configure,release,$(BUILD),-DPACELINE_TESTS=ON)
	cmake --build $(BUILD) -j $(JOBS)

tests-asan:
	$(call configure,asan,$(ASAN),-DPACELINE_TESTS=ON)
	cmake --build $(ASAN) -j $(JOBS)

# The libFuzzer targets, where there is a clang that has libFuzzer; run-tests.sh says so where there is none.
tests-fuzz:
	@if tools/fuzz-smoke.sh --there; then $(MAKE) --no-print-directory fuzzers; fi

fuzzers:
	$(call configure,fuzz,$(FUZZ),)
	cmake --build $(FUZZ) -j $(JOBS) --target $(FUZZERS)

# make fuzz SECONDS=60: each target for so long; a finding is written to build/fuzz and ends the run.
SECONDS ?= 60
fuzz: setup-test fuzzers
	for f in $(FUZZERS); do mkdir -p $(FUZZ)/found/$$f; \
	  $(FUZZ)/tests/fuzz/$$f -max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=2048 \
	    -artifact_prefix=$(FUZZ)/ $(FUZZ)/found/$$f tests/fuzz/corpus/$$f || exit 1; done

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
