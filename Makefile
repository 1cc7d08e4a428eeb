# The targets of the project. A comment of two hashes behind a target is what `make help` prints.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go

# The race detector needs a C compiler; go switches cgo off by itself where there is none.
RACE := $(if $(filter 1,$(shell $(GO) env CGO_ENABLED)),-race)

# make sim: the first seed, and how many.
SEED  ?= 1
SEEDS ?= 20000
# make chaos: for how long, and the random seed; 0 picks one from the clock. CHAOS=flags adds others.
MINUTES   ?= 60
CHAOSSEED ?= 0
CHAOS     ?=
# make fuzz: how long for each fuzzer.
FUZZTIME ?= 60s
# make bench: which benchmarks, where, and how long for each that does not say so itself.
BENCH     ?= ^Benchmark(Runtime|Pebble|PebbleHotCustomer|AppendOverRaw|Gateway|Service|ResidentCustomer|ColdActivation|WakeFromArchive|Wakings|BytesPerEvent|Cluster)$$
BENCHPKG  ?= ./test/bench ./persistence/pebble ./gateway ./internal/node
BENCHTIME ?= 1s
# make bench-failover: which tests of test/failover (Kill, StoreNodeStalls, RollingRestart, ScaleOut, HandOver,
# Pause, PauseConfirmedByRead, Saturated), how many owners are killed, how often a node is drained, with
# how many clients, how long all processors are kept busy, the nodes of Cassandra, and where logs and results stay.
WHICH     ?= .*
KILLS     ?= 100
ROUNDS    ?= 40
MOVERS    ?= 20
SATURATE  ?= 30m
CASSANDRA ?= 1
LOGS      ?=
# make bench-path: the store (cassandra or pebble); commits or source directories to compare with, with parameters of the
# store's URL behind a question mark; for how long to measure without any request instead; and further flags.
STORE     ?= cassandra
BASE      ?=
IDLE      ?=
BENCHPATH ?=
# make bench-cassandra: settings of scripts/cassandra.sh.
CASSANDRA_ENV ?= TIMEOUT=20s
# Packages of the product, and of test, a module of its own (go.work).
ALL := ./... ./test/...
# make test-all and cover: which packages.
# The longest come first, so that none of them runs alone in the end.
PKG ?= ./test/sim ./test/e2e ./test/browser ./test/chaos ./internal/node ./persistence/cassandra $(ALL)
# make test-all: how many packages at a time. More of them than processors starve the Cassandra that they share.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)

# Tools are pinned in tools/go.mod and built from source, once for each version.
TOOLS     := tools/go.mod tools/go.sum
BUF       := bin/buf
GOLANGCI  := bin/golangci-lint
VALE      := bin/vale
SECURITY  := tools/security/go.mod tools/security/go.sum
SBOM      := bin/cyclonedx-gomod
VULNCHECK := bin/govulncheck
DEPLOY    := tools/deploy/go.mod tools/deploy/go.sum
NFPM      := bin/nfpm

##@ Every day

.PHONY: check
check: fmt-check vet ## The quick loop: formatting, vet, short tests with -race. Needs only Go
	$(GO) test -short -vet=off $(RACE) $(ALL)

.PHONY: test
test: ## Everything that must pass; installs what it needs
	@scripts/install-needs.sh
	@$(MAKE) fmt-check tidy-check lint proto-check # Among the linters is vet.
	@$(MAKE) test-all test-sim test-alerts test-chart

.PHONY: build
build: ## Build the programs into bin/
	GOWORK=off $(GO) build -trimpath -o bin/ ./cmd/...
	GOWORK=off $(GO) -C test build -trimpath -o ../bin/ ./cmd/...

.PHONY: fmt
fmt: ## Format all Go files
	gofmt -s -w .

.PHONY: cover
cover: ## Test coverage by package, and as a page in bin/cover.html
	@mkdir -p bin
	$(GO) test -short -coverpkg=./...,./test/... -coverprofile=bin/cover.all $(PKG) | grep -e '^---' -e '^FAIL' || true
	@grep -v -e '\.pb\.go:' -e '\.connect\.go:' bin/cover.all >bin/cover.out
	@$(GO) tool cover -html=bin/cover.out -o bin/cover.html
	@scripts/coverage.sh bin/cover.out

.PHONY: cluster
cluster: ## A cluster on this machine until Ctrl-C: Cassandra, three nodes, two gateways. DEMO=1 adds a year of history
	@scripts/cluster.sh

##@ Looking closer

.PHONY: sim
sim: ## Simulate SEEDS=20000 schedules from SEED=1 on
	$(GO) test ./test/sim -run 'Seeds$$' -count=1 -timeout 0 -v -seed=$(SEED) -seeds=$(SEEDS)

.PHONY: mutants
mutants: ## Plant each known bug and see that it is caught; brings the table in docs/design/reliability.md up to date
	$(GO) test ./test/sim -run 'Mutants$$' -count=1 -timeout 60m -v -table=../../docs/design/reliability.md

.PHONY: chaos
chaos: ## Break a cluster on real Cassandra for MINUTES=60 and judge it (root, for faults of the network)
	$(GO) run ./test/cmd/licensed-chaos run --length $(MINUTES)m --seed $(CHAOSSEED) --dir bin/chaos-$(shell date +%m%d-%H%M%S) $(CHAOS)

.PHONY: chaos-mutants
chaos-mutants: ## Plant each bug that only chaos can find, and see that a run of 40 s catches it
	$(GO) test ./test/chaos -run 'Mutants$$' -count=1 -timeout 60m -v -mutants

.PHONY: hostile
hostile: ## Attack a protected cluster on real Cassandra, and say which attack succeeded: BEFORE=report.json of an earlier release
	$(GO) run ./test/cmd/licensed-chaos hostile $(if $(BEFORE),--before $(BEFORE)) --table docs/design/hostile-run.md

.PHONY: fuzz
fuzz: ## Run every fuzzer for FUZZTIME=60s
	@scripts/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## The ratios of docs/design/benchmarks.md; BENCH=regexp and BENCHPKG=packages pick others
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime $(BENCHTIME) -timeout 60m -p 1 $(BENCHPKG)

.PHONY: bench-cassandra
bench-cassandra: ## The ratios on one Cassandra node, with its JDK (about 8 minutes)
	LICENSED_BENCH_NODES=1 LICENSED_BENCH_ENV='$(CASSANDRA_ENV)' \
		$(GO) test -run '^$$' -bench '^BenchmarkCassandra$$' -benchtime 1x -timeout 20m ./test/bench

.PHONY: bench-cassandra-three
bench-cassandra-three: ## The same on three nodes with replication 3 (about 10 minutes)
	LICENSED_BENCH_NODES=3 LICENSED_BENCH_ENV='HEAP=512M $(CASSANDRA_ENV)' LICENSED_BENCH_WARMUP=120s LICENSED_BENCH_TURN=5s \
		$(GO) test -run '^$$' -bench '^BenchmarkCassandra$$' -benchtime 1x -timeout 30m ./test/bench

.PHONY: bench-confirm
bench-confirm: ## What it costs to confirm replies by a read of the lease, on Cassandra (about 2 minutes); CASSANDRA=3
	LICENSED_BENCH_NODES=$(CASSANDRA) LICENSED_BENCH_ENV='HEAP=768M $(CASSANDRA_ENV)' LICENSED_BENCH_TURN=2s \
		$(GO) test -run '^$$' -bench '^BenchmarkConfirm$$' -benchtime 1x -timeout 20m ./test/bench

.PHONY: bench-path
bench-path: ## The request path from outside: CPU, allocations and calls of each process; about 6 minutes. BASE=commit, STORE=pebble, IDLE=1m
	$(GO) build -o bin/ ./test/cmd/licensed-bench
	bin/licensed-bench $(if $(IDLE),idle --for $(IDLE),path) --store $(STORE) $(foreach base,$(BASE),--base '$(base)') $(BENCHPATH)

.PHONY: bench-failover
bench-failover: ## What customers notice of crashes, pauses, restarts, moves and saturation; about 75 minutes. WHICH='Kill|Pause', CASSANDRA=3, KILLS=n, LOGS=dir
	$(GO) test ./test/failover -failover -run '^Test($(WHICH))$$' -kills $(KILLS) -rounds $(ROUNDS) -movers $(MOVERS) -saturate $(SATURATE) \
		-cassandra $(CASSANDRA) $(if $(LOGS),-logs $(abspath $(LOGS))) -v -count=1 -timeout 240m

##@ Generated code and tools

.PHONY: proto
proto: $(BUF) ## Generate Go and OpenAPI from the .proto files
	$(BUF) generate

.PHONY: proto-check
proto-check: $(BUF) ## Lint the .proto files, compare with proto/baseline.binpb, see that generated code is fresh
	$(BUF) format --diff --exit-code
	$(BUF) lint
	$(BUF) breaking --against proto/baseline.binpb
	@scripts/generated-is-fresh.sh

.PHONY: proto-baseline
proto-baseline: $(BUF) ## At a release: make today's .proto files what later ones must stay compatible with
	$(BUF) build --as-file-descriptor-set --exclude-source-info -o proto/baseline.binpb

.PHONY: release
release: $(SBOM) $(NFPM) ## Archives for each platform, Debian packages, checksums and lists of modules: VERSION=v1.2.3, SIGN_KEY=file
	@scripts/release.sh '$(VERSION)'

.PHONY: release-test
release-test: $(SBOM) $(NFPM) ## Build a release of the last commit twice and compare; INSTALL=1 installs and purges its Debian package (root)
	$(GO) test ./test/release -count=1 -v -timeout 30m -release $(if $(INSTALL),-install)

.PHONY: module-path
module-path: $(BUF) ## Give the project another module path: MODULE=example.com/org/licensed
	@scripts/module-path.sh '$(MODULE)'
	@$(MAKE) proto

.PHONY: lint
lint: $(GOLANGCI) prose ## Run the linters of .golangci.yml, and the prose linter
	$(GOLANGCI) run $(ALL)

.PHONY: prose
prose: $(VALE) ## Check the words of Markdown and Go comments (styles/Licensed)
	git ls-files '*.md' '*.go' ':!*.pb.go' ':!*.connect.go' ':!CHANGELOG.md' ':!*/testdata/*' ':!*/vendor/*' | xargs $(VALE) --output=line

.PHONY: vulncheck
vulncheck: $(VULNCHECK) ## Known vulnerabilities that the code calls; VULNDB=url for a copy of https://vuln.go.dev
	@$(VULNCHECK) $(if $(VULNDB),-db '$(VULNDB)') $(ALL) || \
		{ echo 'make test compares versions with a list (internal/archtest/testdata/vulnerable.txt) where no database can be reached'; exit 1; }

.PHONY: tools
tools: $(BUF) $(GOLANGCI) $(VALE) ## Build the pinned tools into bin/ (the linter takes minutes, once)

$(BUF): $(TOOLS)
	GOWORK=off $(GO) build -C tools -o ../bin/ github.com/bufbuild/buf/cmd/buf

$(GOLANGCI): $(TOOLS)
	@echo 'building golangci-lint from source; this takes some minutes, once'
	GOWORK=off $(GO) build -C tools -o ../bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(SBOM) $(VULNCHECK): $(SECURITY)
	GOWORK=off $(GO) build -C tools/security -o ../../bin/ github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod golang.org/x/vuln/cmd/govulncheck

$(NFPM): $(DEPLOY)
	GOWORK=off $(GO) build -C tools/deploy -o ../../bin/ github.com/goreleaser/nfpm/v2/cmd/nfpm

# vale parses Go with cgo.
$(VALE): $(TOOLS)
	GOWORK=off $(GO) build -C tools -o ../bin/ github.com/vale-cli/vale/v3/cmd/vale

.PHONY: tidy
tidy: ## Tidy go.mod of each module
	$(GO) mod tidy
	$(GO) -C test mod tidy
	$(GO) -C tools mod tidy
	GOWORK=off $(GO) -C tools/deploy mod tidy

##@ Parts of test

.PHONY: fmt-check
fmt-check: ## See that all Go files are formatted
	@out=$$(gofmt -s -l .); if [[ -n $$out ]]; then \
		echo "not formatted, run make fmt:"; echo "$$out"; exit 1; fi

.PHONY: vet
vet: ## go vet
	$(GO) vet $(RACE) $(ALL) # as the tests are built, so that nothing is compiled twice
	$(GO) vet -tags failpoints,plantedbugs ./internal/failpoint ./internal/planted

.PHONY: tidy-check
tidy-check: ## See that go.mod of each module is tidy, and that tests run with the product's versions
	$(GO) mod tidy -diff
	$(GO) -C test mod tidy -diff
	$(GO) -C tools mod tidy -diff
	GOWORK=off $(GO) -C tools/deploy mod tidy -diff
	@diff <(GOWORK=off $(GO) list -m -f '{{.Path}} {{.Version}}' $$(awk '/^\t/ { print $$1 }' go.mod)) \
		<($(GO) list -m -f '{{.Path}} {{.Version}}' $$(awk '/^\t/ { print $$1 }' go.mod)) || \
		{ echo "test/go.mod asks for other versions than go.mod: use the same in both"; exit 1; }

.PHONY: test-all
test-all: ## All tests with -race: unit, conformance, end to end, import rules, fuzz corpora, planted bugs
	@trap 'DIR=$(CURDIR)/bin/cassandra/cassandra scripts/cassandra.sh destroy; rm -rf bin/cassandra' EXIT; \
	LICENSED_CASSANDRA_DIR=$(CURDIR)/bin/cassandra $(GO) test $(RACE) -vet=off -p $(JOBS) -timeout 30m $(PKG)
	$(GO) test -vet=off -tags failpoints,plantedbugs ./internal/failpoint ./internal/planted

.PHONY: test-sim
test-sim: ## 2,000 simulated schedules with -race
	$(GO) test $(RACE) -vet=off ./test/sim -run 'Seeds$$' -count=1 -timeout 30m -v -seeds=2000

# Tests that bring processes into the state that an alert is for.
REHEARSALS := Scrapes|NobodyServes|DamagedSnapshotIsRebuilt|DamagedHistoryIsShown|EventsAhead|LargeCustomersAreTold|GossipIsland|RevokedCertificates

.PHONY: test-alerts
test-alerts: ## Alert rules and Grafana's dashboards, by Prometheus' own engine, on what a cluster at work tells
	@rm -rf bin/scrapes
	LICENSED_SCRAPES=$(CURDIR)/bin/scrapes $(GO) test $(RACE) -vet=off ./internal/node -run '^Test($(REHEARSALS))$$' -count=1
	LICENSED_SCRAPES=$(CURDIR)/bin/scrapes GOWORK=off $(GO) -C tools/alerts test ./...

.PHONY: test-chart
test-chart: ## The Helm chart: rendered, decoded strictly into the types of Kubernetes, and as deploy/kubernetes
	GOWORK=off $(GO) -C tools/deploy test ./...

.PHONY: chart
chart: ## Render deploy/kubernetes from the Helm chart
	GOWORK=off $(GO) -C tools/deploy test ./... -count=1 -run TestManifestsAreFresh -update

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
