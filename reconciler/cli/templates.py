"""The files that `reconciler init` writes. Text only."""

from __future__ import annotations

SETTINGS = """\
# The operator's settings of Reconciler. Check them with: reconciler settings check
# Git never sets anything in here. Relative paths begin at the directory of this file.
# yaml-language-server: $schema=https://reconciler.dev/schemas/v1/settings.schema.json

# The Git mirrors and the journal. Back up the journal: it is the audit log.
data: data

log:
  format: console        # json for log collectors

# The HTTP API: health, metrics, webhooks, read-only status. Make a token with: openssl rand -hex 32
# http:
#   listen: 127.0.0.1:8480
#   tokenFile: token

repositories:
  fleet:
    url: "file://{fleet}"
    allowFile: true      # only for a repository on this machine
    # url: https://git.example/team/fleet.git
    # tokenFile: fleet-token
    poll: 60s
    # webhook:
    #   forge: github
    #   secretFile: webhook-secret

runtimes:
  local:
    docker:
      host: unix:///var/run/docker.sock
  # cluster:
  #   kubernetes:
  #     kubeconfig: kubeconfig         # in a pod of the cluster itself: inCluster: true
  #     context: production

environments:
  staging:
    repository: fleet
    runtime: local
    ref: main
    # What Git may ask for in this environment, beyond the strict defaults:
    # allow:
    #   hostPorts: ["8000-8100"]
    #   writableRoot: true
    # proxy:
    #   image: reconciler-haproxy:debian  # deploy/haproxy/build.sh makes it; an official one is written name@sha256:…
    #   http: 127.0.0.1:8080
  # production:
  #   repository: fleet
  #   runtime: cluster
  #   namespace: production            # it must exist, and no other environment uses it
  #   gateway:                         # for services with traffic: a Gateway that admits routes of the namespace
  #     name: public
  #     namespace: gateways
"""

ENVIRONMENT = """\
# yaml-language-server: $schema=https://reconciler.dev/schemas/v1/environment.schema.json
apiVersion: reconciler.dev/v1
kind: Environment
metadata:
  name: staging
spec:
  prune:
    maxPercent: 50       # a commit that removes more of the services than this is not followed
"""

SERVICE = """\
# yaml-language-server: $schema=https://reconciler.dev/schemas/v1/service.schema.json
apiVersion: reconciler.dev/v1
kind: Service
metadata:
  name: hello
spec:
  # Pinned by digest. Find it with: docker pull IMAGE && docker inspect -f '{{index .RepoDigests 0}}' IMAGE
  image: registry.example/hello:1.0.0@sha256:0000000000000000000000000000000000000000000000000000000000000000
  replicas: 0            # raise this once the image is yours
  ports:
    - name: http
      container: 8080
  health:
    http:
      port: http
      path: /
    interval: 2s
"""

README = """\
# Fleet

What runs where. Reconciler follows the branch `main`: merge a pull request to change something, revert a commit to
return. Each directory below `environments/` is an environment, each file in it a service.

Check a change before you push it with `reconciler validate`.
"""
