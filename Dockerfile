# syntax=docker/dockerfile:1
# A static binary in an empty image: no shell, no libc, not root.
#
#   docker build -t REGISTRY/revguard:VERSION .                              for the machine's own processor
#   docker buildx build --platform linux/amd64,linux/arm64 -t … .            for both
#   docker build --target sbom --output target/image .                       what is in it, as CycloneDX
#
# What the stages run is image/binary.sh and image/sbom.py, which `make image` and `make sbom` run as well, without an engine.
ARG RUST=1.95

FROM --platform=$BUILDPLATFORM rust:${RUST}-slim-bookworm AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
ARG TARGETARCH=amd64
# Versions are those of the Debian release that the base image names; python3 writes the SBOM.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-minimal libpython3-stdlib \
 && case "$TARGETARCH" in \
      "$(dpkg --print-architecture)") ;; \
      amd64) apt-get install -y --no-install-recommends gcc-x86-64-linux-gnu libc6-dev-amd64-cross && rustup target add x86_64-unknown-linux-gnu ;; \
      arm64) apt-get install -y --no-install-recommends gcc-aarch64-linux-gnu libc6-dev-arm64-cross && rustup target add aarch64-unknown-linux-gnu ;; \
      *) echo "no target for $TARGETARCH; there are amd64 and arm64" >&2; exit 1 ;; \
    esac \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Dependencies first: they change less often than the code.
COPY image/binary.sh image/skeleton.sh image/
COPY Cargo.toml Cargo.lock ./
RUN image/skeleton.sh && image/binary.sh "$TARGETARCH"
COPY src src
# Cargo goes by times, and those of a checkout may be older than the skeleton's.
RUN touch src/main.rs src/lib.rs && cp "$(image/binary.sh "$TARGETARCH")" /revguard
COPY image/sbom.py image/
RUN case "$TARGETARCH" in amd64) cpu=x86_64 ;; *) cpu=aarch64 ;; esac \
 && image/sbom.py "$cpu-unknown-linux-gnu" > /revguard.cdx.json

FROM scratch AS sbom
COPY --from=build /revguard.cdx.json /

FROM scratch
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="revguard" \
      org.opencontainers.image.description="The guard of Istio upgrades on Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /revguard /revguard
USER 65532:65532
EXPOSE 8443 8080
ENTRYPOINT ["/revguard"]
CMD ["serve"]
