package hopsk8s

import (
	"cmp"
	"errors"
)

// Conversions between Go and the types of the contract, wit/pods.wit and wit/deps/app/app.wit.

func asPodSpec(v *val) PodSpec {
	r := asRecord(v)
	spec := PodSpec{
		Namespace: asString(r.field("namespace")),
		Image:     asString(r.field("image")),
		Command:   asList(r.field("command"), asString),
		Args:      asList(r.field("args"), asString),
		Env: asList(r.field("env"), func(v *val) EnvVar {
			name, value := asPair(v)
			return EnvVar{name, value}
		}),
		CPU:      asString(r.field("cpu")),
		Memory:   asString(r.field("memory")),
		InputDir: asString(r.field("input-dir")),
		InputFiles: asList(r.field("input-files"), func(v *val) File {
			r := asRecord(v)
			return File{Path: asString(r.field("path")), Content: asBytes(r.field("content"))}
		}),
		OutputDir:        asString(r.field("output-dir")),
		Lifetime:         asMillis(r.field("lifetime-ms")),
		Keep:             asBool(r.field("keep")),
		ImagePullSecrets: asList(r.field("image-pull-secrets"), asString),
		NodeSelector:     map[string]string{},
	}
	if account := asOption(r.field("service-account")); account != nil {
		spec.ServiceAccount = asString(account)
	}
	for _, v := range items(r.field("node-selector")) {
		name, value := asPair(&v)
		spec.NodeSelector[name] = value
	}
	return spec
}

func newStatus(s *PodStatus) val {
	return newRecord(
		field{"phase", newEnum(string(cmp.Or(s.Phase, Pending)))},
		field{"cause", newCause(s.Cause)},
		field{"unschedulable", newOptionOf(s.Unschedulable, newString)},
		field{"waits-for-room", newBool(s.WaitsForRoom)},
		field{"disruption", newOptionOf(s.Disruption, newCause)},
		field{"deleted", newBool(s.Deleted)},
		field{"main", newState(s.Main)},
		field{"sidecar", newOptionOf(s.Sidecar, newState)},
	)
}

func newOptionOf[T any](content *T, convert func(T) val) val {
	if content == nil {
		return newOption(nil)
	}
	v := convert(*content)
	return newOption(&v)
}

func newCause(c Cause) val {
	return newRecord(field{"reason", newString(c.Reason)}, field{"message", newString(c.Message)})
}

func newState(s ContainerState) val {
	switch {
	case s.Terminated != nil:
		terminated := newRecord(
			field{"exit-code", newS32(s.Terminated.ExitCode)},
			field{"reason", newString(s.Terminated.Reason)},
			field{"message", newString(s.Terminated.Message)},
		)
		return newVariant("terminated", &terminated)
	case s.Running:
		return newVariant("running", nil)
	default:
		waiting := newCause(s.Waiting)
		return newVariant("waiting", &waiting)
	}
}

func newError(err error) val {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Kind: Other, Message: err.Error()}
	}
	var content val
	switch e.Kind {
	case Forbidden:
		content = newRecord(field{"message", newString(e.Message)}, field{"missing", newOptionOf(e.Missing, newRule)})
	case TooLarge:
		content = newRecord(field{"size", newU64(e.Size)}, field{"limit", newU64(e.Limit)})
	default:
		content = newString(e.Message)
	}
	return newVariant(string(e.Kind), &content)
}

func newRule(r Rule) val {
	return newRecord(
		field{"verb", newString(r.Verb)},
		field{"resource", newString(r.Resource)},
		field{"namespace", newString(r.Namespace)},
	)
}

func asDescription(v *val) Description {
	r := asRecord(v)
	return Description{
		Name:    asString(r.field("name")),
		Version: asString(r.field("version")),
		Summary: asString(r.field("summary")),
		Handlers: asList(r.field("handlers"), func(v *val) Handler {
			r := asRecord(v)
			return Handler{
				Name:         asString(r.field("name")),
				Summary:      asString(r.field("summary")),
				InputsSchema: asString(r.field("inputs-schema")),
			}
		}),
	}
}

func asCallError(v *val) error {
	kind, content := asVariant(v)
	message := asString(content)
	if kind == "unknown-handler" {
		return UnknownHandlerError{message}
	}
	return errors.New(message)
}
