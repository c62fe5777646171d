# Lists and runs what one does in this repository. The work itself is in the scripts named here.

.DEFAULT_GOAL := help
.PHONY: help run test check check-format check-lints bench proof clean-nodes

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 24

run: ## Build Fanfare and show it at work on a private RabbitMQ; EXIT=1 ends after the demonstration.
	@deploy/prerequisites.sh && cargo build --release --locked -p fanfare-cli && exec target/release/fanfare dev $(if $(filter 1,$(EXIT)),--exit)

test: ## Run all tests against RabbitMQ 3.10 and 4.3 and PostgreSQL, which it installs and starts.
	@deploy/prerequisites.sh && tests/run.sh

check: check-format check-lints ## Check the format and the lints.

check-format: ## Check the format alone.
	@cargo fmt --all --check

check-lints: ## Check the lints alone.
	@deploy/prerequisites.sh && cargo clippy --workspace --all-targets --locked -- -D warnings && \
		cargo clippy --workspace --locked --test proof -- -D warnings

bench: ## Measure on RabbitMQ 4.3 and 3.10.
	@tests/bench.sh

proof: ## Run the long and timed proofs on RabbitMQ 4.3; takes an hour on a quiet machine.
	@tests/proof.sh

clean-nodes: ## Stop the RabbitMQ nodes and PostgreSQL servers under target/ and remove their data.
	@find target -maxdepth 4 -name identity -printf '%h\n' 2>/dev/null | while read -r node; do deploy/rabbitmq/node.sh stop "$$node" && rm -rf "$$node"; done
	@find target -maxdepth 4 -name postgres.identity -printf '%h\n' 2>/dev/null | while read -r server; do deploy/postgres/server.sh stop "$$server" && rm -rf "$$server"; done
