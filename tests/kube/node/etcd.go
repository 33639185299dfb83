package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdCommand serves one member on loopback addresses: within the room nobody but the API server can reach them.
func etcdCommand() *cobra.Command {
	var data, client, peer string
	command := &cobra.Command{
		Use:          "etcd",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(*cobra.Command, []string) error { return serveEtcd(data, client, peer) },
	}
	command.Flags().StringVar(&data, "data", "", "directory of its data")
	command.Flags().StringVar(&client, "client", "http://127.0.0.1:2379", "where the API server reaches it")
	command.Flags().StringVar(&peer, "peer", "http://127.0.0.1:2380", "where other members would")
	return command
}

func serveEtcd(data, client, peer string) error {
	clientURL, err := url.Parse(client)
	if err != nil {
		return fmt.Errorf("--client: %w", err)
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return fmt.Errorf("--peer: %w", err)
	}
	config := embed.NewConfig()
	config.Dir = data
	config.LogLevel = "warn"
	config.UnsafeNoFsync = true // what a test wrote need not survive a crash of the machine
	config.QuotaBackendBytes = 2 << 30
	config.AutoCompactionMode = "revision"
	config.AutoCompactionRetention = "100000"
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{*clientURL}, []url.URL{*clientURL}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{*peerURL}, []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return err
	}
	defer server.Close()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		return nil
	case err := <-server.Err():
		return err
	}
}
