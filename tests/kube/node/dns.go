package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/net/dns/dnsmessage"
	discovery "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	core "k8s.io/client-go/listers/core/v1"
	slices "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/clientcmd"
)

const zone = "svc.cluster.local."

// names answers questions for IPv4 addresses of Services, which is all that pods here ask: https://git.k8s.io/dns
// specifies it. Everything else does not exist, because no way leads out of the room.
type names struct {
	services core.ServiceLister
	slices   slices.EndpointSliceLister
}

// dnsCommand serves names over UDP.
func dnsCommand() *cobra.Command {
	var kubeconfig, address string
	command := &cobra.Command{
		Use:          "dns",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(*cobra.Command, []string) error { return serveNames(kubeconfig, address) },
	}
	command.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how to reach the API server")
	command.Flags().StringVar(&address, "address", "", "where to listen, host:port")
	return command
}

func serveNames(kubeconfig, address string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	clients, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	factory := informers.NewSharedInformerFactory(clients, 0)
	known := &names{
		services: factory.Core().V1().Services().Lister(),
		slices:   factory.Discovery().V1().EndpointSlices().Lister(),
	}
	factory.Start(stop)
	factory.WaitForCacheSync(stop)
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	go func() {
		ending := make(chan os.Signal, 1)
		signal.Notify(ending, syscall.SIGTERM, syscall.SIGINT)
		<-ending
		close(stop)
		_ = socket.Close()
	}()
	packet := make([]byte, 1500)
	for {
		size, from, err := socket.ReadFrom(packet)
		if err != nil {
			return nil
		}
		if said, err := known.answer(packet[:size]); err == nil {
			_, _ = socket.WriteTo(said, from)
		}
	}
}

func (n *names) answer(packet []byte) ([]byte, error) {
	var parser dnsmessage.Parser
	header, err := parser.Start(packet)
	if err != nil {
		return nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return nil, err
	}
	if header.Response {
		return nil, fmt.Errorf("not a question")
	}
	addresses, exists := n.find(strings.ToLower(question.Name.String()))
	said := dnsmessage.Header{
		ID: header.ID, Response: true, Authoritative: true, RecursionDesired: header.RecursionDesired,
		RecursionAvailable: true,
	}
	if !exists {
		said.RCode = dnsmessage.RCodeNameError
	}
	builder := dnsmessage.NewBuilder(nil, said)
	if err := builder.StartQuestions(); err != nil {
		return nil, err
	}
	if err := builder.Question(question); err != nil {
		return nil, err
	}
	if err := builder.StartAnswers(); err != nil {
		return nil, err
	}
	if question.Type == dnsmessage.TypeA {
		for _, address := range addresses[:min(len(addresses), 25)] { // what fits in 512 bytes
			resource := dnsmessage.ResourceHeader{Name: question.Name, Class: question.Class, TTL: 1}
			if err := builder.AResource(resource, dnsmessage.AResource{A: address.As4()}); err != nil {
				return nil, err
			}
		}
	}
	return builder.Finish()
}

// find knows <service>.<namespace>.svc.cluster.local., and before it the host name of one endpoint.
func (n *names) find(name string) ([]netip.Addr, bool) {
	short, within := strings.CutSuffix(name, "."+zone)
	if !within {
		return nil, false
	}
	words := strings.Split(short, ".")
	host := ""
	if len(words) == 3 {
		host, words = words[0], words[1:]
	}
	if len(words) != 2 {
		return nil, false
	}
	service, err := n.services.Services(words[1]).Get(words[0])
	if err != nil {
		return nil, false
	}
	if service.Spec.ClusterIP != "None" && host == "" {
		address, err := netip.ParseAddr(service.Spec.ClusterIP)
		if err != nil || !address.Is4() {
			return nil, true
		}
		return []netip.Addr{address}, true
	}
	found := n.endpoints(words[1], words[0], host)
	return found, host == "" || len(found) > 0
}

// endpoints are the addresses of a Service's ready pods, or of the one that is called `host`.
func (n *names) endpoints(namespace, service, host string) []netip.Addr {
	of := labels.SelectorFromSet(labels.Set{discovery.LabelServiceName: service})
	listed, _ := n.slices.EndpointSlices(namespace).List(of)
	var found []netip.Addr
	for _, slice := range listed {
		for _, one := range slice.Endpoints {
			ready := one.Conditions.Ready == nil || *one.Conditions.Ready
			if !ready || host != "" && (one.Hostname == nil || *one.Hostname != host) {
				continue
			}
			for _, text := range one.Addresses {
				if address, err := netip.ParseAddr(text); err == nil && address.Is4() {
					found = append(found, address)
				}
			}
		}
	}
	return found
}
