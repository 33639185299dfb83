package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"time"

	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/middlewares/requestdecorator"
	muxer "github.com/traefik/traefik/v3/pkg/muxer/http"
	"github.com/traefik/traefik/v3/pkg/provider/kubernetes/gateway"
	"github.com/traefik/traefik/v3/pkg/server/service/loadbalancer/wrr"
)

// maker makes handlers of what the controller declares. Connections to pods are kept from one to the next.
type maker struct {
	transport *http.Transport
}

func newMaker() *maker {
	return &maker{&http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 200,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}}
}

// handler leads each request by the rules of all routers.
func (m *maker) handler(configuration *dynamic.Configuration) (http.Handler, error) {
	parser, err := muxer.NewSyntaxParser()
	if err != nil {
		return nil, err
	}
	rules := muxer.NewMuxer(parser, nil)
	services := configuration.HTTP.Services
	for name, router := range configuration.HTTP.Routers {
		next, err := m.service(router.Service, services)
		if err != nil {
			return nil, fmt.Errorf("router %s: %w", name, err)
		}
		if err := rules.AddRoute(router.Rule, router.RuleSyntax, router.Priority, gateway.ProviderName, next); err != nil {
			return nil, err
		}
	}
	// The rules ask for the host as this reads it.
	return requestdecorator.WrapHandler(requestdecorator.New(nil))(rules)
}

func (m *maker) service(name string, services map[string]*dynamic.Service) (http.Handler, error) {
	found := services[name]
	switch {
	case found == nil:
		return nil, fmt.Errorf("there is no service %s", name)
	case found.Weighted != nil:
		return m.weighted(found.Weighted, services)
	case found.LoadBalancer != nil:
		return m.pods(found.LoadBalancer)
	default:
		return nil, fmt.Errorf("service %s is of a kind that this program does not serve", name)
	}
}

// weighted shares requests out by weights. What the controller refuses answers with the status that it chose.
func (m *maker) weighted(declared *dynamic.WeightedRoundRobin, services map[string]*dynamic.Service) (http.Handler, error) {
	balancer := wrr.New(nil, false)
	for _, each := range declared.Services {
		if each.Status != nil {
			status := *each.Status
			balancer.Add(each.Name, http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
				answer.WriteHeader(status)
			}), each.Weight, false)
			continue
		}
		next, err := m.service(each.Name, services)
		if err != nil {
			return nil, err
		}
		balancer.Add(each.Name, next, each.Weight, false)
	}
	return balancer, nil
}

func (m *maker) pods(declared *dynamic.ServersLoadBalancer) (http.Handler, error) {
	balancer := wrr.New(nil, false)
	for _, server := range declared.Servers {
		target, err := url.Parse(server.URL)
		if err != nil {
			return nil, err
		}
		balancer.AddServer(server.URL, &httputil.ReverseProxy{
			Transport: m.transport,
			Rewrite: func(request *httputil.ProxyRequest) {
				request.SetURL(target)
				request.Out.Host = request.In.Host
			},
		}, server)
	}
	return balancer, nil
}
