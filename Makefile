# `make` lists the targets. Each can be run twice; a failure names the next command.
# Needs Go and a POSIX shell, nothing else; images, up, down and smoke want docker, kubectl and tilt.

.DEFAULT_GOAL := help
.PHONY: help run test test-real faults sim mutants lint generate verify manifests bench images up down smoke doctor

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The race detector needs cgo and a C compiler; without them the tests run without it. It leaves
# out SQLite itself, C that was translated to Go: watching that took most of the tests' time.
RACE = $(shell set -- $$(go env CC); test "$$(go env CGO_ENABLED)" = 1 && command -v "$$1" >/dev/null 2>&1 && \
	echo -race -gcflags=modernc.org/sqlite/lib=-race=false)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

# How make run's programs are built, and those of the images below; deploy/size_test.go reads these
# lines. Left out are gRPC's traces, for which the linker would keep an image's unused code; hundreds of
# types of pgx's; and the C library, 2 MB of memory.
RUN_BUILD = CGO_ENABLED=0 go build -buildvcs=false -tags grpcnotrace,nopgxregisterdefaulttypes

run: ## the whole shop in one process; Ctrl-C stops it
	@echo "building (about a minute the first time, a second later)"
	@$(RUN_BUILD) -o bin/console ./services/console/cmd/console && $(RUN_BUILD) -o bin/keyline ./services/all/cmd/all || { echo "make run: it does not build; next: go vet ./..." >&2; exit 1; }
	@./bin/keyline

PROGRAMS = order inventory email console
# The images' leave SQLite out as well, since replicas would not share a file.
IMAGE_TAGS = nosqlite,grpcnotrace,nopgxregisterdefaulttypes
IMAGE_BUILD = CGO_ENABLED=0 GOOS=linux go build -tags $(IMAGE_TAGS) -trimpath -ldflags="-s -w"
ARCH = $(or $(strip $(shell docker version -f '{{.Server.Arch}}' 2>/dev/null)),$(shell go env GOARCH))
TAG = dev

binary-%: # of one program, static, for the node
	@GOARCH=$(ARCH) $(IMAGE_BUILD) -o bin/image/$*/$(ARCH)/$* ./services/$*/cmd/$*

images: $(PROGRAMS:%=binary-%) ## keyline-order, -inventory, -email and -console as images of the local docker; ARCH=arm64 TAG=v1 for others
	@for p in $(PROGRAMS); do \
		docker build -q --platform linux/$(ARCH) -f deploy/Dockerfile --build-arg SERVICE=$$p --build-arg TARGETARCH=$(ARCH) -t keyline-$$p:$(TAG) bin/image/$$p >/dev/null || { \
			echo "make images: docker could not build keyline-$$p; next: make doctor" >&2; exit 1; }; \
		echo "keyline-$$p:$(TAG) $(ARCH), $$(( $$(docker image inspect -f '{{.Size}}' keyline-$$p:$(TAG)) / 1000000 )) MB"; done

up: doctor ## the shop on a local Kubernetes, with its parts and Jaeger: tilt up; Ctrl-C leaves it running
	@tilt up || { echo "make up: next: make doctor; what is in the cluster: kubectl -n keyline get pods" >&2; exit 1; }

down: ## take it from the cluster again, data and all
	@tilt down && kubectl delete namespace keyline --ignore-not-found || { echo "make down: next: make doctor" >&2; exit 1; }

smoke: ## place orders in the current cluster, kill pods, check mails and traces; fails unless all is right
	@go run ./deploy/shop smoke || { echo "make smoke: next: kubectl -n keyline get pods; make doctor" >&2; exit 1; }

test: ## all tests, on the embedded Kafka, registry and mailbox and on SQLite
	@echo "go test $(RACE) ./..."
	@go test $(RACE) -timeout 10m ./... || { \
		echo "make test: look at the first FAIL above; one alone: go test $(RACE) -run 'TestName' -v ./its/folder/" >&2; exit 1; }

# What meets PostgreSQL; test-real runs it once more as the images are built.
SQL = ./pkg/db ./pkg/inbox ./pkg/outbox ./pkg/idempotency ./services/order ./services/inventory ./services/email

test-real: ## all tests, on the Kafka of KAFKA_BROKERS and the PostgreSQL of DATABASE_URL
	@test -n "$$KAFKA_BROKERS" && test -n "$$DATABASE_URL" || { \
		echo "make test-real: set KAFKA_BROKERS and DATABASE_URL, or let a script start both: .ci/real make test-real" >&2; exit 1; }
	@echo "go test $(RACE) -count=1 ./..."
	@go test $(RACE) -count=1 -timeout 10m ./... || { \
		echo "make test-real: look at the first FAIL above; one alone: go test -count=1 -run 'TestName' -v ./its/folder/" >&2; exit 1; }
	@echo "go test -tags $(IMAGE_TAGS) -skip Pressure -count=1 $(SQL)"
	@go test -tags $(IMAGE_TAGS) -skip Pressure -count=1 -timeout 5m $(SQL) || { \
		echo "make test-real: only as the images are built? What PostgreSQL calls a parameter's type: pkg/db/types.go" >&2; exit 1; }

FAULT = F[0-9]+|Pressure
SEEDS = 100

faults: ## every fault of the list in full, about an hour; FAULT=F12 only that one, SEED=7 the same moments again
	@grep -qE 'Test($(FAULT))_' pkg/inbox/*_test.go services/all/*_test.go services/all/faults/*_test.go || { \
		echo "make faults: no fault is called $(FAULT); all of them are in services/all/faults/README.md" >&2; exit 1; }
	@table=$$PWD/services/all/faults/README.md; echo "every fault; the table is kept in services/all/faults/README.md"; \
	KEYLINE_FAULTS=full KEYLINE_FAULTS_SEED=$(SEED) KEYLINE_FAULTS_TABLE=$$table \
		go test -v -count=1 -p 1 -timeout 3h -run '^Test($(FAULT))_' ./pkg/inbox ./services/all ./services/all/faults || { \
		echo "make faults: each failure above names its seed; one again: make faults FAULT=F12 SEED=7" >&2; exit 1; }

sim: ## the shop in virtual time under random faults; SEEDS=1000 so many, SEED=42 that one with its log
	@go run ./services/all/sim/cmd/sim $(if $(SEED),-seed $(SEED),-seeds $(SEEDS)) || { \
		echo "make sim: one of those seeds again, with its log: make sim SEED=..." >&2; exit 1; }

mutants: ## take the promises' code out piece by piece, and name the tests that notice; MUTANT=claim only those
	@go run ./services/all/mutants -run '$(MUTANT)' || { \
		echo "make mutants: what nothing catches is a missing test; those that need PostgreSQL: .ci/real make mutants" >&2; exit 1; }

lint: ## gofmt, go vet, staticcheck
	@files=$$(gofmt -l .); test -z "$$files" || { echo "$$files"; echo "make lint: next: gofmt -w ." >&2; exit 1; }
	@go vet ./... && go vet -tags synctests ./services/all/sim && go vet -tags $(IMAGE_TAGS) ./pkg/db ./services/... && cd deploy/check && go vet ./... && cd ../../pkg/bench && go vet ./... || { echo "make lint: mend what go vet names above" >&2; exit 1; }
	@go run $(STATICCHECK) ./... && cd deploy/check && go run $(STATICCHECK) ./... && cd ../../pkg/bench && go run $(STATICCHECK) ./... || { \
		echo "make lint: mend what staticcheck names above; what a code means: go run $(STATICCHECK) -explain CODE" >&2; exit 1; }
	@echo "lint: clean"

generate: ## write what follows from the .avsc files
	@go generate ./schemas/... || { echo "make generate: mend the .avsc file named above, then make generate" >&2; exit 1; }

verify: ## generated files are current, schemas compatible with all earlier versions
	@for ref in origin/main main; do git show $$ref:schemas/versions.sum 2>/dev/null; done | sort -u | while read -r line; do \
		grep -qxF "$$line" schemas/versions.sum || { echo "make verify: $${line##* } is on the main branch and never changes: restore it and its line in schemas/versions.sum, and write a new version" >&2; exit 1; }; done
	@go run ./schemas/internal/generate -dir schemas -check || { echo "make verify: mend what is named above; if something is stale, next: make generate" >&2; exit 1; }
	@go test ./schemas/... || { echo "make verify: mend the schema named above; what may change: schemas/doc.go" >&2; exit 1; }

manifests: ## what deploy renders to: valid, restricted, and only the flows that are declared
	@cd deploy/check && go test || { echo "make manifests: mend what is named above in deploy; the rules and their reasons: deploy/check" >&2; exit 1; }

bench: ## B1 to B13 beside the raw client and the peers, about half an hour, kept in pkg/bench/results; QUICK=1 only tries it, ONLY=B1 measures one; .ci/real make bench for all of it
	@cd pkg/bench && go build -buildvcs=false -o ../../bin/bench . && if test -n "$(QUICK)"; then go test . && ../../bin/bench -quick; else ../../bin/bench $(if $(ONLY),-only '$(ONLY)'); fi || { \
		echo "make bench: next: cd pkg/bench && go vet . && go run . -quick" >&2; exit 1; }

doctor: ## what make up needs: what is there, and the command that mends what is not
	@deploy/doctor.sh
