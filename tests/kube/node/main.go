// Command node is the one-node Kubernetes cluster of the tests: etcd and Kubernetes' own components in one binary,
// and the room they run in. Each component is a program of its own, so that a test can end one and start it again.
//
// It must not be used for anything but tests: etcd does not wait for the disk.
package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // /metrics counts the calls of each client
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	_ "sigs.k8s.io/gateway-api/apis/v1" // pins the release whose CRDs are copied beside the binary
)

var commands = map[string]func() *cobra.Command{
	"apiserver":    apiserver.NewAPIServerCommand,
	"controllers":  controllers.NewControllerManagerCommand,
	"scheduler":    func() *cobra.Command { return scheduler.NewSchedulerCommand() },
	"kubelet":      func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) },
	"proxy":        proxy.NewProxyCommand,
	"kubectl":      kubectl.NewDefaultKubectlCommand,
	"etcd":         etcdCommand,
	"certificates": certificatesCommand,
	"dns":          dnsCommand,
	"open":         openCommand,
	"hold":         holdCommand,
}

func main() {
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		names := make([]string, 0, len(commands))
		for name := range commands {
			names = append(names, name)
		}
		slices.Sort(names)
		fmt.Fprintf(os.Stderr, "node: name one of these first: %s\n", strings.Join(names, ", "))
		os.Exit(2)
	}
	command := commands[os.Args[1]]()
	// Kubernetes' commands look for their arguments there, and not all of them let themselves be told.
	os.Args = append(os.Args[:1], os.Args[2:]...)
	os.Exit(cli.Run(command))
}
