// A stand-in for Terraform's provider of Google Cloud. It knows the names and types of resources, from a file
// schema.json beside the program, and nothing else: `terraform validate` and `terraform test` with a mock_provider
// need no more. It has no network code.
//
// The file has the format of `terraform providers schema -json`, for one provider.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"path/filepath"

	"github.com/hashicorp/terraform-plugin-go/tfprotov5"
	"github.com/hashicorp/terraform-plugin-go/tfprotov5/tf5server"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
)

const address = "registry.terraform.io/hashicorp/google"

var errStub = errors.New("this provider is a stand-in for tests and cannot reach Google Cloud")

type file struct {
	Provider    body            `json:"provider"`
	Resources   map[string]body `json:"resource_schemas"`
	DataSources map[string]body `json:"data_source_schemas"`
}

type body struct {
	Block block `json:"block"`
}

type block struct {
	Attributes map[string]attribute `json:"attributes"`
	Blocks     map[string]nested    `json:"block_types"`
}

type attribute struct {
	Type     json.RawMessage `json:"type"`
	Required bool            `json:"required"`
	Optional bool            `json:"optional"`
	Computed bool            `json:"computed"`
}

type nested struct {
	Block    block `json:"block"`
	MinItems int64 `json:"min_items"`
	MaxItems int64 `json:"max_items"`
}

func (b block) schema() (*tfprotov5.SchemaBlock, error) {
	result := &tfprotov5.SchemaBlock{}
	for name, a := range b.Attributes {
		kind, err := tftypes.ParseJSONType(a.Type) //nolint:staticcheck // the only parser of this format
		if err != nil {
			return nil, err
		}
		result.Attributes = append(result.Attributes, &tfprotov5.SchemaAttribute{
			Name: name, Type: kind, Required: a.Required, Optional: a.Optional, Computed: a.Computed,
		})
	}
	for name, n := range b.Blocks {
		inner, err := n.Block.schema()
		if err != nil {
			return nil, err
		}
		result.BlockTypes = append(result.BlockTypes, &tfprotov5.SchemaNestedBlock{
			TypeName: name,
			Block:    inner,
			Nesting:  tfprotov5.SchemaNestedBlockNestingModeList,
			MinItems: n.MinItems,
			MaxItems: n.MaxItems,
		})
	}
	return result, nil
}

func schemas(bodies map[string]body) (map[string]*tfprotov5.Schema, error) {
	result := map[string]*tfprotov5.Schema{}
	for name, b := range bodies {
		inner, err := b.Block.schema()
		if err != nil {
			return nil, err
		}
		result[name] = &tfprotov5.Schema{Block: inner}
	}
	return result, nil
}

// stub answers questions about types, accepts what has the right types, and refuses the rest.
type stub struct {
	tfprotov5.ProviderServer // nil: methods that are not here are not called by the tests
	schema                   *tfprotov5.GetProviderSchemaResponse
}

func load(path string) (*stub, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, err
	}
	provider, err := f.Provider.Block.schema()
	if err != nil {
		return nil, err
	}
	resources, err := schemas(f.Resources)
	if err != nil {
		return nil, err
	}
	sources, err := schemas(f.DataSources)
	if err != nil {
		return nil, err
	}
	return &stub{schema: &tfprotov5.GetProviderSchemaResponse{
		Provider:          &tfprotov5.Schema{Block: provider},
		ResourceSchemas:   resources,
		DataSourceSchemas: sources,
	}}, nil
}

func (s *stub) GetProviderSchema(
	_ context.Context, _ *tfprotov5.GetProviderSchemaRequest,
) (*tfprotov5.GetProviderSchemaResponse, error) {
	return s.schema, nil
}

func (s *stub) PrepareProviderConfig(
	_ context.Context, r *tfprotov5.PrepareProviderConfigRequest,
) (*tfprotov5.PrepareProviderConfigResponse, error) {
	return &tfprotov5.PrepareProviderConfigResponse{PreparedConfig: r.Config}, nil
}

func (s *stub) ValidateResourceTypeConfig(
	_ context.Context, _ *tfprotov5.ValidateResourceTypeConfigRequest,
) (*tfprotov5.ValidateResourceTypeConfigResponse, error) {
	return &tfprotov5.ValidateResourceTypeConfigResponse{}, nil
}

func (s *stub) ValidateDataSourceConfig(
	_ context.Context, _ *tfprotov5.ValidateDataSourceConfigRequest,
) (*tfprotov5.ValidateDataSourceConfigResponse, error) {
	return &tfprotov5.ValidateDataSourceConfigResponse{}, nil
}

func (s *stub) ConfigureProvider(
	_ context.Context, _ *tfprotov5.ConfigureProviderRequest,
) (*tfprotov5.ConfigureProviderResponse, error) {
	return nil, errStub
}

func (s *stub) StopProvider(
	_ context.Context, _ *tfprotov5.StopProviderRequest,
) (*tfprotov5.StopProviderResponse, error) {
	return &tfprotov5.StopProviderResponse{}, nil
}

func main() {
	program, err := os.Executable()
	if err != nil {
		log.Fatal(err)
	}
	program, err = filepath.EvalSymlinks(program) // Terraform links to the folder of the mirror
	if err != nil {
		log.Fatal(err)
	}
	s, err := load(filepath.Join(filepath.Dir(program), "schema.json"))
	if err != nil {
		log.Fatal(err)
	}
	if err := tf5server.Serve(address, func() tfprotov5.ProviderServer { return s }); err != nil {
		log.Fatal(err)
	}
}
