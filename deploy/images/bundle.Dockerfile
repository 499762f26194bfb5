# A model bundle as an image, for clusters: the encoders' init container copies it out. Its context is the bundle's directory:
#
#   docker build -f deploy/images/bundle.Dockerfile -t slipstream-bundle:MODEL_ID var/models/MODEL_ID
FROM busybox:1.37.0
LABEL org.opencontainers.image.title="A model bundle of Slipstream"
COPY --chmod=555 . /bundle
USER 10001:10001
