//go:build tools

// Package kustomize pins the program that renders deploy/kubernetes in the tests.
package kustomize

import _ "sigs.k8s.io/kustomize/kustomize/v5"
