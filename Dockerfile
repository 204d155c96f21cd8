# All three images: docker build --target balancer | server | analysis .
# Nothing here needs BuildKit; with it, stages that the target does not use are skipped.
ARG RUST_VERSION=1.95

# The manifests with empty sources: what the dependencies alone are built from. Its
# content stays the same while only code changes, and so does every layer made from it.
FROM debian:bookworm-slim AS skeleton
WORKDIR /src
COPY . .
RUN find . -type f -not -name Cargo.toml -not -name Cargo.lock \
        -not -path '*/src/lib.rs' -not -path '*/src/main.rs' \
        -not -path '*/benches/*.rs' -not -path '*/examples/*.rs' -delete \
    && find . -type d -empty -delete \
    && for file in $(find . -name '*.rs'); do echo '#![allow(warnings)] fn main() {}' >"$file"; done


FROM rust:${RUST_VERSION}-slim-bookworm AS builder
WORKDIR /src
COPY --from=skeleton /src .
# Cleaned of the empty crates themselves: cargo would take them for newer than the sources.
RUN cargo build --release --locked -p balancer -p server \
    && cargo clean --release -p balancer -p server
COPY . .
RUN cargo build --release --locked -p balancer -p server


# The load balancer. It needs no privileges but the Docker socket, and that only with
# `--runtime docker`. The socket belongs to root and to a group whose number differs from
# host to host, so the image cannot name it: whoever mounts the socket also says
# `--user 0` (as docker-compose.yml does) or `--group-add "$(stat -c %g /var/run/docker.sock)"`.
FROM debian:bookworm-slim AS balancer
COPY --from=builder /src/target/release/balancer /usr/local/bin/balancer
USER 10001:10001
EXPOSE 5000
STOPSIGNAL SIGTERM
ENTRYPOINT ["balancer"]


# The demo replica.
FROM debian:bookworm-slim AS server
COPY --from=builder /src/target/release/server /usr/local/bin/server
USER 10001:10001
ENV SERVER_LISTEN=0.0.0.0:5000
EXPOSE 5000
STOPSIGNAL SIGTERM
ENTRYPOINT ["server"]


# Apart from `builder`: the demo needs neither the load generator nor the chart library.
FROM builder AS analysis-builder
RUN cargo build --release --locked -p analysis


# The load generator and the experiments; `--out report` lands in /work/report.
FROM debian:bookworm-slim AS analysis
COPY --from=analysis-builder /src/target/release/analysis /usr/local/bin/analysis
WORKDIR /work
RUN chown 10001:10001 /work
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["analysis"]


# What `docker build .` makes when no target is named.
FROM balancer
