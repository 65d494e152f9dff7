package embedded

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"example.com/keyline/pkg/codec/compat"

	"github.com/twmb/franz-go/pkg/sr"
	"github.com/twmb/franz-go/pkg/sr/srfake"
)

const (
	registryFile     = "registry.json"
	maxSubjectBytes  = 255
	maxRegistryBytes = 64 << 20 // all schemas together
)

// Registry is a schema registry with Confluent's HTTP API. Every subject is FULL_TRANSITIVE;
// nothing is ever deleted. It is safe for concurrent use.
type Registry struct {
	handler http.Handler
	fake    *srfake.Registry // answers what only reads
	folder  *folder          // nil: memory only

	mu   sync.Mutex
	kept []keptSchema // in the order of their registration
	size int
}

// keptSchema is one version of one subject. Versions count from 1 without gaps.
type keptSchema struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
	ID      int    `json:"id"`
	Schema  string `json:"schema"` // without insignificant white space

	form string // the same for schemas that differ in the order of JSON members only
}

// NewRegistry opens the registry that is kept in dir, or a new one; with an empty dir it lives
// in memory. One process at a time can use a folder.
func NewRegistry(dir string) (*Registry, error) {
	r := &Registry{fake: srfake.NewRegistry()}
	r.handler = r.routes()
	if dir == "" {
		return r, nil
	}
	var err error
	if r.folder, err = openFolder(dir, "registry"); err != nil {
		return nil, err
	}
	if err := r.load(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close releases the folder; everything is saved already.
func (r *Registry) Close() error {
	if r.folder == nil {
		return nil
	}
	return r.folder.close()
}

// SchemaID is the ID that the embedded registry gives to a schema: the first 31 bits of the
// SHA-256 of its minified JSON. The error is that of the JSON.
func SchemaID(schema string) (int, error) {
	var minified bytes.Buffer
	if err := json.Compact(&minified, []byte(schema)); err != nil {
		return 0, fmt.Errorf("minify schema: %w", err)
	}
	sum := sha256.Sum256(minified.Bytes())
	return int(binary.BigEndian.Uint32(sum[:4]) >> 1), nil
}

// register returns the schema's ID once it is saved; the same schema again has the same one.
func (r *Registry) register(subject, schema string) (int, error) {
	s, err := newSchema(subject, schema)
	if err != nil {
		return 0, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if known, ok := r.find(subject, s.form); ok {
		return known.ID, nil
	}
	if err := judge(subject, r.versions(subject), s.Schema); err != nil {
		return 0, err
	}
	if err := r.number(&s); err != nil {
		return 0, err
	}
	if err := r.save(s); err != nil {
		return 0, &refusal{http.StatusInternalServerError, sr.ErrStoreError.Code, err.Error()}
	}
	return s.ID, r.add(s)
}

func newSchema(subject, schema string) (keptSchema, error) {
	if subject == "" || len(subject) > maxSubjectBytes {
		return keptSchema{}, &refusal{http.StatusUnprocessableEntity, sr.ErrInvalidSubject.Code, "a subject has 1 to 255 bytes"}
	}
	var tree any
	if err := json.Unmarshal([]byte(schema), &tree); err != nil {
		return keptSchema{}, invalidSchema(err.Error())
	}
	form, err := json.Marshal(tree)
	if err != nil {
		return keptSchema{}, err
	}
	var minified bytes.Buffer
	err = json.Compact(&minified, []byte(schema))
	return keptSchema{Subject: subject, Schema: minified.String(), form: string(form)}, err
}

// judge tells an invalid schema from one that breaks the readers of the subject.
func judge(subject string, versions []string, schema string) error {
	if err := compat.Check(subject, []string{schema}); err != nil {
		return invalidSchema(err.Error())
	}
	if err := compat.Check(subject, append(versions, schema)); err != nil {
		return &refusal{http.StatusConflict, http.StatusConflict, "Schema being registered is incompatible with an earlier schema: " + err.Error()}
	}
	return nil
}

// number gives the schema its version and its ID. Two schemas that differ in the order of JSON
// members only share the ID of the one that came first, as srfake has it.
func (r *Registry) number(s *keptSchema) (err error) {
	if r.size+len(s.Schema) > maxRegistryBytes {
		return &refusal{http.StatusInsufficientStorage, sr.ErrStoreError.Code, "the embedded registry is full"}
	}
	s.Version = len(r.versions(s.Subject)) + 1
	if s.ID, err = SchemaID(s.Schema); err != nil {
		return err
	}
	taken := s.ID == 0
	for _, k := range r.kept {
		if k.form == s.form {
			s.ID = k.ID
			return nil
		}
		taken = taken || k.ID == s.ID
	}
	if taken {
		return invalidSchema(fmt.Sprintf("its ID would be %d, which is taken: change a word of the schema's doc", s.ID))
	}
	return nil
}

// save writes the whole file before anybody can see the new schema.
func (r *Registry) save(s keptSchema) error {
	if r.folder == nil {
		return nil
	}
	return writeJSON(filepath.Join(r.folder.path, registryFile), append(r.kept, s))
}

func (r *Registry) add(s keptSchema) error {
	schema := sr.Schema{Schema: s.Schema}
	if _, shared := r.byID(s.ID); shared {
		if _, _, err := r.fake.RegisterSchema(s.Subject, schema); err != nil {
			return fmt.Errorf("add schema %d to %s: %w", s.ID, s.Subject, err)
		}
	} else {
		r.fake.SeedSchema(s.Subject, s.Version, s.ID, schema)
	}
	r.kept = append(r.kept, s)
	r.size += len(s.Schema)
	return nil
}

// load takes what was kept as it is: a rule that is new since then must not make records
// unreadable.
func (r *Registry) load() error {
	file := filepath.Join(r.folder.path, registryFile)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the kept schemas: %w", err)
	}
	var kept []keptSchema
	if err := json.Unmarshal(text, &kept); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	for _, k := range kept {
		s, err := newSchema(k.Subject, k.Schema)
		if err == nil {
			err = r.number(&s)
		}
		if err == nil && (s.ID != k.ID || s.Version != k.Version) {
			err = fmt.Errorf("it is version %d with ID %d, not version %d with ID %d", s.Version, s.ID, k.Version, k.ID)
		}
		if err != nil {
			return fmt.Errorf("%s is damaged: %s version %d: %w", file, k.Subject, k.Version, err)
		}
		if err := r.add(s); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registry) find(subject, form string) (keptSchema, bool) {
	for _, k := range r.kept {
		if k.Subject == subject && k.form == form {
			return k, true
		}
	}
	return keptSchema{}, false
}

func (r *Registry) byID(id int) (keptSchema, bool) {
	for _, k := range r.kept {
		if k.ID == id {
			return k, true
		}
	}
	return keptSchema{}, false
}

func (r *Registry) versions(subject string) []string {
	var versions []string
	for _, k := range r.kept {
		if k.Subject == subject {
			versions = append(versions, k.Schema)
		}
	}
	return versions
}

// refusal is an error that the client is told in Confluent's form.
type refusal struct {
	status  int
	Code    int    `json:"error_code"`
	Message string `json:"message"`
}

// Error returns the message.
func (r *refusal) Error() string { return r.Message }

func invalidSchema(why string) error {
	return &refusal{http.StatusUnprocessableEntity, sr.ErrInvalidSchema.Code, "Invalid schema: " + why}
}
