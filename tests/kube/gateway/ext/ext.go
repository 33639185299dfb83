// Package ext stands for a module that Traefik keeps beside its own and publishes nowhere: the empty places where
// others may add fields to its configuration. Nothing is added here.
package ext

// HTTP has no further fields of the whole.
type HTTP struct{}

// Router has no further fields of one router.
type Router struct{}
