// Runs DNSEndpoint objects through external-dns's own code: the checks that its source of objects
// makes, its merging, its plan, and its provider in memory.
//
// Each line of stdin is the list of all objects at one moment. Each line of stdout says what
// external-dns changed, and what it publishes from then on.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"sigs.k8s.io/external-dns/apis/v1alpha1"
	"sigs.k8s.io/external-dns/endpoint"
	"sigs.k8s.io/external-dns/plan"
	"sigs.k8s.io/external-dns/provider/inmemory"
)

type answer struct {
	Created int      `json:"created"`
	Updated int      `json:"updated"`
	Deleted int      `json:"deleted"`
	Refused []string `json:"refused"`
	Records []string `json:"records"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx := context.Background()
	provider := inmemory.NewInMemoryProvider(inmemory.InMemoryInitZones(os.Args[1:]))
	moments := bufio.NewScanner(os.Stdin)
	moments.Buffer(nil, 1<<24)
	for moments.Scan() {
		var objects []v1alpha1.DNSEndpoint
		if err := json.Unmarshal(moments.Bytes(), &objects); err != nil {
			return err
		}
		said, err := step(ctx, provider, objects)
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

func step(ctx context.Context, provider *inmemory.InMemoryProvider, objects []v1alpha1.DNSEndpoint) (*answer, error) {
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
	current, err := provider.Records(ctx)
	if err != nil {
		return nil, err
	}
	calculated := (&plan.Plan{
		Policies:       []plan.Policy{&plan.SyncPolicy{}},
		Current:        current,
		Desired:        endpoint.MergeEndpoints(desired),
		ManagedRecords: []string{endpoint.RecordTypeA, endpoint.RecordTypeAAAA, endpoint.RecordTypeSRV},
	}).Calculate()
	if err := provider.ApplyChanges(ctx, calculated.Changes); err != nil {
		return nil, err
	}
	said.Created = len(calculated.Changes.Create)
	said.Updated = len(calculated.Changes.UpdateNew)
	said.Deleted = len(calculated.Changes.Delete)
	published, err := provider.Records(ctx)
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
