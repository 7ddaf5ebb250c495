# make test     everything that a change must pass, real servers included (installs them by apt)
# make demo     real servers with the edge between them; KEEP=1 leaves them running; SIDECAR=1 with a sidecar inside, SIP=1 with a Kamailio
# make kind-demo  the same in a cluster that kind makes: two organisations, the chart, a message both ways
# make bench    what a stanza and a stream cost, beside a plain relay; ONLY=saturated runs a part
# make release  both programs as images have them: in target/release
# make loss     what outages and deaths of servers cost, as the tables of docs/loss.md: half an hour
# make fuzz     every fuzz target for SECONDS each (needs nightly and cargo-fuzz)
# make tools    a Kubernetes, images, the servers of Debian 13 and axe-core for the tests: some minutes once, then nothing
# make images   both images, with docker, podman or buildah; images/build says what TAG, PLATFORM and PUSH do
# make chart    the chart as a package in target/charts; PUSH=oci://REGISTRY/PATH pushes it
# make lint     formatting, clippy, and the policy for dependencies where cargo-deny is installed

SECONDS ?= 600
KEEP ?=
SIDECAR ?=
ONLY ?=
CHARTS ?= target/charts
# Most of what tests do is waiting: more of them at a time than two cores have.
THREADS ?= 4

.PHONY: test demo bench release loss fuzz lint binaries install tools images chart kind-demo

test: install binaries
	RUST_TEST_THREADS=$(THREADS) tests/run

demo: install binaries
	cargo run -q -p xmpp-edge-tests --bin demo -- $(if $(KEEP),--keep) $(if $(SIDECAR),--sidecar) $(if $(SIP),--sip)

bench: install release
	cargo bench -p xmpp-edge-tests --bench edge -- $(ONLY)

# Fat LTO and a profile were measured and brought nothing: docs/performance.md.
release:
	cargo build --release --locked -p xmpp-edge-operator -p xmpp-edge-proxy

loss: install tools binaries
	FAULTS_ALL=1 cargo test -p xmpp-edge-tests --test faults_loss --test faults_outage -- --nocapture --test-threads 1 table

fuzz:
	cd tests/fuzz && for target in $$(cargo +nightly fuzz list --fuzz-dir .); do \
		cargo +nightly fuzz run $$target --fuzz-dir . -- -max_total_time=$(SECONDS) || exit 1; \
	done

lint:
	cargo fmt --all -- --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo "no cargo-deny here: deny.toml is not checked"; fi

kind-demo:
	SIDECAR=$(SIDECAR) examples/kind/demo

images:
	images/build

chart:
	mkdir -p $(CHARTS)
	helm package charts/xmpp-edge --destination $(CHARTS)
	$(if $(PUSH),helm push $(CHARTS)/xmpp-edge-$$(images/build --version).tgz $(PUSH))

binaries:
	cargo build --workspace --bins

install:
	tests/install

tools: install
	tests/cluster/tools/build
	tests/cluster/images/build
	tests/servers/build
	tests/browser/build
