package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const lifetime = 10 * 365 * 24 * time.Hour

// identity is one who speaks to the API server: the name and the group that its certificate proves.
type identity struct{ file, user, group string }

type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
	encoded     []byte
}

// certificatesCommand writes the cluster's own authority, what the API server needs, and a kubeconfig for each user.
func certificatesCommand() *cobra.Command {
	var directory, address, service, node, server string
	command := &cobra.Command{
		Use:          "certificates",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(*cobra.Command, []string) error {
			return writeCertificates(directory, server, node, []net.IP{net.ParseIP(address), net.ParseIP(service)})
		},
	}
	command.Flags().StringVar(&directory, "dir", "", "where the files go")
	command.Flags().StringVar(&address, "address", "", "address of the API server")
	command.Flags().StringVar(&service, "service", "", "cluster address of the API server")
	command.Flags().StringVar(&node, "node", "", "name of the node")
	command.Flags().StringVar(&server, "server", "", "URL of the API server")
	return command
}

func writeCertificates(directory, server, node string, addresses []net.IP) error {
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(directory, "ca.crt"), ca.encoded, 0o600); err != nil {
		return err
	}
	names := []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc.cluster.local",
	}
	serving := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		DNSNames:    names,
		IPAddresses: append(addresses, net.IPv4(127, 0, 0, 1)),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	calling := client("kube-apiserver", "system:masters")
	pairs := map[string]*x509.Certificate{
		"apiserver":       serving,
		"apiserver-calls": calling,
		"admin":           client("admin", "system:masters"),
		"front-proxy":     client("front-proxy", ""),
	}
	for file, template := range pairs {
		if err := writePair(directory, file, ca, template); err != nil {
			return err
		}
	}
	if err := writeSigningKey(directory); err != nil {
		return err
	}
	for _, who := range []identity{
		{"admin", "admin", "system:masters"},
		{"controllers", "system:kube-controller-manager", ""},
		{"scheduler", "system:kube-scheduler", ""},
		{"proxy", "system:kube-proxy", ""},
		{"kubelet", "system:node:" + node, "system:nodes"},
		{"dns", "dns", "system:masters"},
	} {
		if err := writeKubeconfig(directory, server, ca, who); err != nil {
			return err
		}
	}
	return nil
}

func client(user, group string) *x509.Certificate {
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	return &x509.Certificate{Subject: subject, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "cluster of the tests"},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	encoded, err := issue(template, template, key.Public(), key, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(encoded)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return &authority{certificate, key, encoded}, nil
}

// issue fills in what all certificates share and signs: the PEM text.
func issue(
	template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer, usage x509.KeyUsage,
) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour) // clocks jump on machines that were asleep
	template.NotAfter = template.NotBefore.Add(lifetime)
	template.KeyUsage = usage
	encoded, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: encoded}), nil
}

// pair makes a key and its certificate, both as PEM text.
func pair(ca *authority, template *x509.Certificate) (certificate, private []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	certificate, err = issue(template, ca.certificate, key.Public(), ca.key, x509.KeyUsageDigitalSignature)
	if err != nil {
		return nil, nil, err
	}
	private, err = encodeKey(key)
	return certificate, private, err
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	encoded, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: encoded}), nil
}

func writePair(directory, name string, ca *authority, template *x509.Certificate) error {
	certificate, private, err := pair(ca, template)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(directory, name+".crt"), certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, name+".key"), private, 0o600)
}

// writeSigningKey makes the key of the service accounts' tokens.
func writeSigningKey(directory string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	private, err := encodeKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(directory, "accounts.key"), private, 0o600)
}

func writeKubeconfig(directory, server string, ca *authority, who identity) error {
	certificate, private, err := pair(ca, client(who.user, who.group))
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", who.file, err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["tests"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca.encoded}
	config.AuthInfos[who.file] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: private}
	config.Contexts["tests"] = &clientcmdapi.Context{Cluster: "tests", AuthInfo: who.file}
	config.CurrentContext = "tests"
	return clientcmd.WriteToFile(*config, filepath.Join(directory, who.file+".kubeconfig"))
}
