package hopsk8s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// vector is a file of tests/vectors, whose README describes the keys.
type vector struct {
	name       string
	About      string
	Handler    string
	Inputs     json.RawMessage
	InputsText *string `json:"inputs-text"`
	Time       time.Time
	Pod        script
	Spec       any
	PodsLeft   int `json:"pods-left"`
	Result     *string
	CallError  map[string]string `json:"call-error"`
}

type script struct {
	Refused *jsonError
	States  []state
	Lost    *jsonError
	Files   map[string]struct {
		Text   *string
		Base64 []byte
		Error  *jsonError
	}
	Log string
}

type state struct {
	AtMs          int64 `json:"at-ms"`
	Phase         Phase
	Cause         Cause
	Unschedulable *string
	WaitsForRoom  bool `json:"waits-for-room"`
	Disruption    *Cause
	Deleted       bool
	Main          jsonState
	Sidecar       *jsonState
}

func (s state) status() *PodStatus {
	return &PodStatus{
		Phase:         s.Phase,
		Cause:         s.Cause,
		Unschedulable: s.Unschedulable,
		WaitsForRoom:  s.WaitsForRoom,
		Disruption:    s.Disruption,
		Deleted:       s.Deleted,
		Main:          ContainerState(s.Main),
		Sidecar:       (*ContainerState)(s.Sidecar),
	}
}

type jsonState ContainerState

func (s *jsonState) UnmarshalJSON(text []byte) error {
	if string(text) == `"running"` {
		s.Running = true
		return nil
	}
	var variant struct {
		Waiting    Cause
		Terminated *struct {
			ExitCode        int32 `json:"exit-code"`
			Reason, Message string
		}
	}
	err := decode(text, &variant)
	s.Waiting, s.Terminated = variant.Waiting, (*Terminated)(variant.Terminated)
	return err
}

type jsonError Error

func (e *jsonError) UnmarshalJSON(text []byte) error {
	var variant map[ErrorKind]json.RawMessage
	if err := json.Unmarshal(text, &variant); err != nil {
		return err
	}
	for kind, content := range variant {
		e.Kind = kind
		switch kind {
		case Forbidden:
			return decode(content, &struct {
				Message *string
				Missing **Rule
			}{&e.Message, &e.Missing})
		case TooLarge:
			return decode(content, &struct{ Size, Limit *uint64 }{&e.Size, &e.Limit})
		default:
			return decode(content, &e.Message)
		}
	}
	return errors.New("an error without a kind")
}

func decode(text []byte, to any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(to)
}

func vectors(t testing.TB) []vector {
	t.Helper()
	paths, err := filepath.Glob("../../vectors/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatal("no vectors", err)
	}
	var all []vector
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v := vector{name: strings.TrimSuffix(filepath.Base(path), ".json"), Handler: "run"}
		if err := decode(text, &v); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		all = append(all, v)
	}
	return all
}

func vectorOf(t testing.TB, name string) vector {
	t.Helper()
	all := vectors(t)
	return all[slices.IndexFunc(all, func(v vector) bool { return v.name == name })]
}

func (v vector) inputs() string {
	if v.InputsText != nil {
		return *v.InputsText
	}
	return string(v.Inputs)
}

// scripted are pods that play a script, and a clock that runs with them.
type scripted struct {
	script
	start time.Time
	now   time.Time
	// How many states Wait has returned.
	seen  int
	specs []PodSpec
	left  int
}

func (s *scripted) clock() time.Time { return s.now }

func (s *scripted) Create(_ context.Context, spec PodSpec) (Pod, error) {
	s.specs = append(s.specs, spec)
	if s.Refused != nil {
		return nil, (*Error)(s.Refused)
	}
	s.left++
	return s, nil
}

func (s *scripted) Name() string { return "pod-1" }

func (s *scripted) Wait(_ context.Context, timeout time.Duration) (*PodStatus, error) {
	if s.seen == len(s.States) && s.Lost != nil {
		return nil, (*Error)(s.Lost)
	}
	end := s.now.Add(timeout)
	if s.seen < len(s.States) {
		next := s.States[s.seen]
		if at := s.start.Add(time.Duration(next.AtMs) * time.Millisecond); !at.After(end) {
			s.seen++
			if at.After(s.now) {
				s.now = at
			}
			return next.status(), nil
		}
	}
	s.now = end
	return nil, nil
}

func (s *scripted) ReadFile(_ context.Context, path string) ([]byte, error) {
	file, ok := s.Files[path]
	switch {
	case !ok:
		return nil, fs.ErrNotExist
	case file.Error != nil:
		return nil, (*Error)(file.Error)
	case file.Text != nil:
		return []byte(*file.Text), nil
	default:
		return file.Base64, nil
	}
}

func (s *scripted) TailLogs(_ context.Context, lines uint32) (string, error) {
	all := strings.Split(strings.TrimSuffix(s.Log, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-int(lines)):], "\n"), nil
}

func (s *scripted) Delete(context.Context) error {
	s.left--
	return nil
}

// The plugin, compiled once for all tests.
var loaded = sync.OnceValues(func() (*Plugin, error) { return Load(os.Getenv("HOPS_PLUGIN")) })

func plugin(t testing.TB) *Plugin {
	t.Helper()
	p, err := loaded()
	if err != nil {
		t.Fatalf("HOPS_PLUGIN must be the path of k8s.wasm: %v", err)
	}
	return p
}

func TestEveryVectorGivesItsResult(t *testing.T) {
	p := plugin(t)
	all := vectors(t)
	passed := 0
	for _, v := range all {
		if t.Run(v.name, func(t *testing.T) { play(t, p, v) }) {
			passed++
		}
	}
	fmt.Printf("Go: %d of %d vectors passed\n", passed, len(all))
}

func play(t testing.TB, p *Plugin, v vector) {
	pods := &scripted{script: v.Pod, start: v.Time, now: v.Time}
	result, err := p.callAt(t.Context(), pods, pods.clock, v.Handler, v.inputs())
	var unknown UnknownHandlerError
	switch {
	case v.Result != nil:
		if err != nil || result != *v.Result {
			t.Errorf("expected %s, found %s, %v", *v.Result, result, err)
		}
	case !errors.As(err, &unknown) || !maps.Equal(v.CallError, map[string]string{"unknown-handler": unknown.Message}):
		t.Errorf("expected the error %q, found %s, %v", v.CallError, result, err)
	}
	if v.Spec != nil {
		if len(pods.specs) != 1 {
			t.Fatalf("%d pods were created", len(pods.specs))
		}
		if found := specJSON(t, pods.specs[0]); !reflect.DeepEqual(found, v.Spec) {
			t.Errorf("expected the spec %v, found %v", v.Spec, found)
		}
	}
	if pods.left != v.PodsLeft {
		t.Errorf("expected that %d pods are left, found %d", v.PodsLeft, pods.left)
	}
}

// specJSON writes a spec as vectors do.
func specJSON(t testing.TB, s PodSpec) any {
	env := [][]string{}
	for _, e := range s.Env {
		env = append(env, []string{e.Name, e.Value})
	}
	files := []map[string]string{}
	for _, f := range s.InputFiles {
		files = append(files, map[string]string{"path": f.Path, "text": string(f.Content)})
	}
	selector := [][]string{}
	for _, name := range slices.Sorted(maps.Keys(s.NodeSelector)) {
		selector = append(selector, []string{name, s.NodeSelector[name]})
	}
	var account *string
	if s.ServiceAccount != "" {
		account = &s.ServiceAccount
	}
	text, err := json.Marshal(map[string]any{
		"namespace":          s.Namespace,
		"image":              s.Image,
		"command":            s.Command,
		"args":               s.Args,
		"env":                env,
		"cpu":                s.CPU,
		"memory":             s.Memory,
		"input-dir":          s.InputDir,
		"input-files":        files,
		"output-dir":         s.OutputDir,
		"lifetime-ms":        s.Lifetime.Milliseconds(),
		"keep":               s.Keep,
		"service-account":    account,
		"image-pull-secrets": s.ImagePullSecrets,
		"node-selector":      selector,
	})
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
