# Every command of this repository. CI calls nothing else.

GO       ?= go
FUZZTIME ?= 1m

# The directories of the modules, the root module first.
MODULES := . cmd/trypema internal/thirdparty
# Those that users fetch, one by one.
PUBLISHED := . cmd/trypema

STATICCHECK  := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCILINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK  := golang.org/x/vuln/cmd/govulncheck@v1.1.4

# The race detector needs a C compiler.
RACE := $(shell command -v gcc >/dev/null || command -v clang >/dev/null && echo -race)

.PHONY: help
help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## the limiter at work on real HTTP traffic, live; Ctrl-C ends it with a summary
	$(GO) run ./cmd/trypema demo

.PHONY: bench
bench: ## measure speed, latency, memory and accuracy
	$(GO) run ./cmd/trypema bench

.PHONY: test
test: ## the tests of every module, with the race detector
	@test -n "$(RACE)" || echo "no C compiler found (gcc or clang): testing without the race detector"
	@for module in $(MODULES); do \
		echo "== $$module"; \
		(cd $$module && $(GO) test $(RACE) -timeout 10m ./...) || exit 1; \
	done

.PHONY: fuzz
fuzz: ## the naive twins against the real thing, FUZZTIME for each (1m)
	$(GO) test -run '^$$' -fuzz FuzzTwin -fuzztime $(FUZZTIME) -fuzzminimizetime 1s ./internal/window
	$(GO) test -run '^$$' -fuzz FuzzLocal -fuzztime $(FUZZTIME) -fuzzminimizetime 1s .

.PHONY: cover
cover: ## statements of the root module that no test runs
	$(GO) test -coverpkg=./... -coverprofile=coverage.out ./...
	@$(GO) tool cover -func=coverage.out | grep -v '100.0%'

.PHONY: benchmarks
benchmarks: ## the Go benchmarks of the root module
	$(GO) test -run '^$$' -bench . ./...

.PHONY: check
check: tidy-check ## formatting, vet, linters, tidy modules
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	@for module in $(MODULES); do \
		echo "== $$module"; \
		(cd $$module && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && \
			$(GO) run $(GOLANGCILINT) run ./...) || exit 1; \
	done

.PHONY: vuln
vuln: ## known vulnerabilities in what the modules use; asks a server on the internet
	@for module in $(MODULES); do (cd $$module && $(GO) run $(GOVULNCHECK) ./...) || exit 1; done

.PHONY: tidy-check
tidy-check: ## go.mod and go.sum are what go mod tidy makes of them
	@! grep -q '^require' go.mod || { echo "go.mod: the root module requires nothing"; exit 1; }
	@for module in $(PUBLISHED); do \
		! grep -q '^replace' $$module/go.mod || { echo "$$module/go.mod: a published module replaces nothing"; exit 1; }; \
	done
	@for module in $(MODULES); do $(MAKE) -s tidy-one MODULE=$$module TIDY=-diff || exit 1; done

.PHONY: tidy
tidy: ## make go.mod and go.sum so
	@for module in $(MODULES); do $(MAKE) -s tidy-one MODULE=$$module TIDY= || exit 1; done

# Until the root module is published, go mod tidy finds it by a replace that must not stay.
.PHONY: tidy-one
tidy-one:
	@cd $(MODULE) && root=$(CURDIR) && \
	test $(MODULE) = . || $(GO) mod edit -replace=github.com/trypema/trypema=$$root; \
	GOWORK=off $(GO) mod tidy $(TIDY); status=$$?; \
	test $(MODULE) = . || $(GO) mod edit -dropreplace=github.com/trypema/trypema; \
	exit $$status
