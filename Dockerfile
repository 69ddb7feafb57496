# syntax=docker/dockerfile:1
# A static binary in an empty image: no shell, no libc, not root.
ARG RUST=1.95
FROM --platform=$BUILDPLATFORM rust:${RUST}-slim-bookworm AS build
ARG TARGETARCH=amd64
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross && rm -rf /var/lib/apt/lists/*
RUN case "$TARGETARCH" in amd64) t=x86_64;; arm64) t=aarch64;; *) echo "no target for $TARGETARCH" >&2; exit 1;; esac \
 && echo "$t-unknown-linux-musl" > /target && rustup target add "$(cat /target)"
ENV CC_x86_64_unknown_linux_musl=musl-gcc \
    CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=rust-lld
WORKDIR /src
# Dependencies first: they change less often than the code.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
 && for b in $(sed -n '/^\[\[bench\]\]/,/^$/s/^name = "\(.*\)"/\1/p' Cargo.toml); do echo 'fn main() {}' > "benches/$b.rs"; done \
 && for t in $(sed -n '/^\[\[\(test\|bench\)\]\]/,/^$/s/^path = "\(.*\)"/\1/p' Cargo.toml); do mkdir -p "$(dirname "$t")" && echo 'fn main() {}' > "$t"; done \
 && cargo build --release --locked --target "$(cat /target)"
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --target "$(cat /target)" \
 && cp "target/$(cat /target)/release/revguard" /revguard

FROM scratch
COPY --from=build /revguard /revguard
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/revguard"]
CMD ["serve"]
