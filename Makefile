# What people and CI run. Each target is plain go; only check and its parts download tools, at the versions named here.

GO       ?= go
FUZZTIME ?= 1m
SOAK     ?= 10m
ARGS     ?=
TIMES    ?= 10
OUT      ?= dist

# Each module that is released, and those that are not. scripts/release.sh has the same list from git.
RELEASED := . ./goredisconn ./grpclimit ./otellimit ./policyfile ./promlimit ./redigoconn ./rueidisconn ./valkeyconn ./internal/cli ./cmd/trypema
MODULES  := $(RELEASED) ./examples ./internal/bench ./internal/thirdparty
PACKAGES := $(MODULES:%=%/...)
OLDEST   := go1.25.0
COVERED  := 95

STATICCHECK   := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
ACTIONLINT    := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
GOVULNCHECK   := golang.org/x/vuln/cmd/govulncheck@v1.8.0

.PHONY: help demo bench report test test-page test-long test-busy test-short test-servers test-alone test-ports check format lint tidy vulnerabilities fuzz mutants soak cover release-check release-ready release-proof release-binary binaries docs benchmarks

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

demo: ## a page with all six limiters under the same load; ARGS=--headless for a run of 20 seconds with a verdict
	@$(GO) run ./cmd/trypema demo $(ARGS)

bench: ## measure speed, latency, memory and accuracy; ARGS='--compare a,b' for flags
	@$(GO) run ./internal/bench $(ARGS)

report: ## measure everything beside everybody, with pictures; ARGS='--quick' for five minutes of it
	@$(GO) run ./internal/bench report $(ARGS)

test: ## every module's tests, with the race detector, on a real Redis and in a real browser; ARGS='./redislimit -run Multi' for some of them
	@MODULES="$(MODULES)" ./scripts/test.sh $(ARGS)

test-long: ## the same tests with random seeds, and longer: some hours; ARGS as above
	@TRYPEMA_EXPLORE=1 MODULES="$(MODULES)" ./scripts/test.sh -count=1 -timeout 4h $(ARGS)

test-busy: ## make test TIMES (10) times beside busy loops, two for each processor: none may fail
	@./scripts/busy.sh $(TIMES) $(MAKE) test ARGS="-count=1 $(ARGS)"

test-short: ## what is released, on any system: no server, no browser, no race detector
	INSTALL=0 $(GO) test -short $(RELEASED:%=%/...)

test-servers: ## conformance, twins, ledger and Cluster on each server that is supported; ARGS='6.2 9.1' for some of them
	@GO="$(GO)" ./scripts/servers.sh $(ARGS)

test-page: ## the pages in a headless Chromium; REPORT=DIR for the page of a report of yours
	@TRYPEMA_EXPLORE=1 MODULES="$(MODULES)" ./scripts/test.sh -count=1 ./internal/thirdparty/pages

test-alone: ## every released module by itself, as it is for those who require it: without the workspace
	@for m in $(RELEASED); do echo "== module $$m"; ./scripts/alone.sh $$m test -short ./... || exit 1; done

test-ports: ## the root module's tests on 32 bits and with the oldest Go; all that others build, vetted for other systems
	GOARCH=386 $(GO) test -short ./...
	GOTOOLCHAIN=$(OLDEST) $(GO) test -short ./...
	@for system in linux/arm darwin/arm64 windows/amd64; do \
		echo "go vet for $$system"; \
		GOOS=$${system%/*} GOARCH=$${system#*/} $(GO) vet $(RELEASED:%=%/...) ./examples/... || exit 1; \
	done

check: format lint tidy vulnerabilities ## all that follows, up to vulnerabilities

format: ## every file is as gofmt writes it, and 110 columns wide
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then echo "not formatted:"; echo "$$files"; exit 1; fi
	@$(GO) test ./internal/proof/house

lint: ## go vet, staticcheck, golangci-lint and actionlint find nothing
	$(GO) run $(ACTIONLINT)
	$(GO) vet -tags explore $(PACKAGES)
	$(GO) run $(STATICCHECK) -tags explore $(PACKAGES)
	@failed=0; \
	for m in $(MODULES); do \
		echo "golangci-lint in $$m"; \
		(cd $$m && $(GO) run $(GOLANGCI_LINT) run --build-tags explore) || failed=1; \
	done; \
	exit $$failed

tidy: ## go.mod and go.sum say what is needed, the root module nothing
	@if grep -n '^require' go.mod; then echo "go.mod: the root module must not require anything"; exit 1; fi
	@for m in $(MODULES); do ./scripts/alone.sh $$m mod tidy -diff || exit 1; done

vulnerabilities: ## govulncheck knows of nothing that is reached
	$(GO) run $(GOVULNCHECK) $(PACKAGES)

fuzz: ## each fuzz target for FUZZTIME (1m)
	@./scripts/fuzz.sh $(FUZZTIME) $(filter-out ./examples,$(MODULES))

mutants: ## the core broken in small ways, each of which the tests must notice; ARGS='-run lua' for some of them
	@$(GO) run ./internal/proof/mutants $(ARGS)

soak: ## all six limiters for SOAK (10m), with faults and keys without end, and a verdict; ARGS='--out DIR' for a picture
	@$(GO) run ./internal/thirdparty/soak --for $(SOAK) $(ARGS)

cover: ## what the root module's own tests do not cover, and the total, which must be 95 % of its statements
	@$(GO) test -coverpkg ./... -coverprofile cover.out ./...
	@$(GO) tool cover -func cover.out | awk '$$NF != "100.0%" { print } \
		$$1 == "total:" && $$NF + 0 < $(COVERED) { print "less than $(COVERED) %"; exit 1 }'

release-check: release-ready check test test-alone test-ports cover mutants release-proof release-binary ## all that must hold for a release: VERSION=v0.2.0

release-ready: ## versions, CHANGELOG.md and tags are ready for VERSION
	@./scripts/release.sh check "$(VERSION)"

release-proof: ## each module of VERSION works from its tags, in a throw-away clone; GOPROXY=off for a proof offline
	@./scripts/release.sh prove "$(VERSION)"

release-binary: ## the archive and the SBOM of the program can be made, for this system
	@out=$$(mktemp -d) && TARGETS=$$($(GO) env GOOS)/$$($(GO) env GOARCH) ./scripts/binaries.sh "$$out" && rm -rf "$$out"

binaries: ## archives of the program, with checksums and an SBOM of each, in OUT (dist); TARGETS=linux/amd64 for one
	@./scripts/binaries.sh "$(OUT)"

docs: ## write into the documents what was measured, and what trypema sim and trypema replay give
	$(GO) test -run TestQuotedNumbers ./internal/bench/report -update
	$(GO) test -run TestDocumentedSimulations ./cmd/trypema/internal/sim -update
	$(GO) test -run TestDocumentedPictures ./cmd/trypema/internal/replay -update
	$(GO) test -run TestSuppressionPicture ./internal/bench/figure -update

benchmarks: ## Local beside others: a table of ratios, in three minutes; ARGS='--only canonical' for a row
	@$(GO) run ./internal/bench ratios $(ARGS)
