// Runs DNSEndpoint objects through external-dns's own code: the checks that its source of objects
// makes, its merging, its plan, and one of its providers: the one in memory, or with -server the one
// that updates a primary by RFC 2136.
//
// Each line of stdin is the list of all objects at one moment. Each line of stdout says what
// external-dns changed, and what it publishes from then on as far as its provider can tell.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"sigs.k8s.io/external-dns/apis/v1alpha1"
	"sigs.k8s.io/external-dns/endpoint"
	"sigs.k8s.io/external-dns/pkg/apis/externaldns"
	"sigs.k8s.io/external-dns/plan"
	"sigs.k8s.io/external-dns/provider"
	"sigs.k8s.io/external-dns/provider/inmemory"
	"sigs.k8s.io/external-dns/provider/rfc2136"
)

type answer struct {
	Created int      `json:"created"`
	Updated int      `json:"updated"`
	Deleted int      `json:"deleted"`
	Refused []string `json:"refused"`
	Records []string `json:"records"`
}

func main() {
	server := flag.String("server", "", "host:port of a primary; without it everything is in memory")
	key := flag.String("key", "", "name of the TSIG key, HMAC-SHA256")
	secret := flag.String("secret", "", "its secret in base64")
	flag.Parse()
	if err := run(*server, *key, *secret, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(server, key, secret string, zones []string) error {
	ctx := context.Background()
	publisher, err := choose(ctx, server, key, secret, zones)
	if err != nil {
		return err
	}
	moments := bufio.NewScanner(os.Stdin)
	moments.Buffer(nil, 1<<24)
	for moments.Scan() {
		var objects []v1alpha1.DNSEndpoint
		if err := json.Unmarshal(moments.Bytes(), &objects); err != nil {
			return err
		}
		said, err := step(ctx, publisher, objects)
		if err != nil {
			return err
		}
		line, err := json.Marshal(said)
		if err != nil {
			return err
		}
		fmt.Println(string(line))
	}
	return moments.Err()
}

func choose(ctx context.Context, server, key, secret string, zones []string) (provider.Provider, error) {
	if server == "" {
		return inmemory.NewInMemoryProvider(inmemory.InMemoryInitZones(zones)), nil
	}
	host, text, err := net.SplitHostPort(server)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, err
	}
	return rfc2136.New(ctx, &externaldns.Config{
		RFC2136Host:            []string{host},
		RFC2136Port:            port,
		RFC2136Zone:            zones,
		RFC2136TSIGKeyName:     key,
		RFC2136TSIGSecret:      secret,
		RFC2136TSIGSecretAlg:   "hmac-sha256",
		RFC2136BatchChangeSize: 50,
	}, endpoint.NewDomainFilter(zones))
}

func step(ctx context.Context, publisher provider.Provider, objects []v1alpha1.DNSEndpoint) (*answer, error) {
	said := &answer{Refused: []string{}, Records: []string{}}
	var desired []*endpoint.Endpoint
	for _, object := range objects {
		for _, wanted := range object.Spec.Endpoints {
			if !wanted.CheckEndpoint() {
				said.Refused = append(said.Refused, wanted.String())
				continue
			}
			desired = append(desired, wanted)
		}
	}
	current, err := publisher.Records(ctx)
	if err != nil {
		return nil, err
	}
	calculated := (&plan.Plan{
		Policies:       []plan.Policy{&plan.SyncPolicy{}},
		Current:        current,
		Desired:        endpoint.MergeEndpoints(desired),
		ManagedRecords: []string{endpoint.RecordTypeA, endpoint.RecordTypeAAAA, endpoint.RecordTypeSRV},
	}).Calculate()
	if err := publisher.ApplyChanges(ctx, calculated.Changes); err != nil {
		return nil, err
	}
	said.Created = len(calculated.Changes.Create)
	said.Updated = len(calculated.Changes.UpdateNew)
	said.Deleted = len(calculated.Changes.Delete)
	published, err := publisher.Records(ctx)
	if err != nil {
		return nil, err
	}
	for _, record := range published {
		for _, target := range record.Targets {
			said.Records = append(said.Records, fmt.Sprintf("%s %d %s %s", record.DNSName, record.RecordTTL, record.RecordType, target))
		}
	}
	slices.Sort(said.Records)
	return said, nil
}
