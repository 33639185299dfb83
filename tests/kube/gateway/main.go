// Command gateway is the Gateway of the tests' cluster: a program on this machine that listens on loopback and leads
// requests to pods. It is put together of Traefik's parts for that: the controller of the Gateway API, which also tells
// of each route whether it is accepted, the rules by which a request finds its route, and the balancer by weights.
//
// It serves HTTP only, one namespace and one GatewayClass, for as long as its standard input is open. It must not be used
// for anything but tests.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/rs/zerolog/log"
	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/provider/kubernetes/gateway"
	"github.com/traefik/traefik/v3/pkg/safe"
)

// The listener of a Gateway names a port, and Traefik looks for an entry point of that port. Where this program really
// listens is told on its standard output.
const (
	entryPoint = "web"
	port       = 80
)

func main() {
	namespace := flag.String("namespace", "", "the namespace whose Gateways and routes are served")
	classes := flag.String("classes", "", "label selector of the GatewayClasses")
	flag.Parse()
	log.Logger = zerolog.New(os.Stderr).Level(zerolog.WarnLevel).With().Timestamp().Logger()
	if err := run(*namespace, *classes); err != nil {
		fmt.Fprintf(os.Stderr, "gateway: %v\n", err)
		os.Exit(1)
	}
}

func run(namespace, classes string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // it ends with whoever started this, however that ended
		stop()
	}()
	pool := safe.NewPool(ctx)
	defer pool.Stop()

	provider := &gateway.Provider{
		Namespaces:    []string{namespace},
		LabelSelector: classes,
		EntryPoints:   map[string]gateway.Entrypoint{entryPoint: {Address: fmt.Sprintf(":%d", port)}},
		StatusAddress: &gateway.StatusAddress{IP: "127.0.0.1"},
	}
	provider.SetDefaults()
	if err := provider.Init(); err != nil {
		return err
	}
	told := make(chan dynamic.Message)
	if err := provider.Provide(told, pool); err != nil {
		return err
	}

	var current atomic.Pointer[http.Handler]
	nothing := http.Handler(http.NotFoundHandler())
	current.Store(&nothing)
	makes := newMaker()
	pool.GoCtx(func(ctx context.Context) {
		for {
			select {
			case <-ctx.Done():
				return
			case message := <-told:
				handler, err := makes.handler(message.Configuration)
				if err != nil {
					log.Error().Err(err).Msg("the routes stay as they were")
					continue
				}
				current.Store(&handler)
			}
		}
	})

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
			(*current.Load()).ServeHTTP(answer, request)
		}),
	}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"address": listener.Addr().String()}); err != nil {
		return err
	}
	if err := server.Serve(listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}
