# The two commands of the README, and a few for those who work on paceline. CMake does the building.
BUILD ?= build/release
ASAN  ?= build/asan
JOBS  ?= $(shell nproc)

.PHONY: all demo test setup build fuzz format install clean
all: build

demo: setup-demo build
	tools/demo.sh $(BUILD)

test: setup-test build build-asan
	tools/run-tests.sh $(BUILD) $(ASAN)

# What is missing is named, asked for (not as root, not without a terminal) and installed.
setup-%:
	@tools/setup.sh $*

build:
	@cmake --preset release -B $(BUILD) >$(or $(TMPDIR),/tmp)/paceline-configure.log 2>&1 || { cat $(or $(TMPDIR),/tmp)/paceline-configure.log; exit 1; }
	cmake --build $(BUILD) -j $(JOBS)

build-asan:
	@cmake --preset asan -B $(ASAN) >$(or $(TMPDIR),/tmp)/paceline-configure.log 2>&1 || { cat $(or $(TMPDIR),/tmp)/paceline-configure.log; exit 1; }
	cmake --build $(ASAN) -j $(JOBS)

format:
	git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	rm -rf build
