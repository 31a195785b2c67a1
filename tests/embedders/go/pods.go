package hopsk8s

import (
	"context"
	"fmt"
	"time"
)

// Pods is a backend, which creates the pods of calls. Any number of calls use it at the same time.
type Pods interface {
	// Create creates a pod with its input files and returns without waiting for it to start. ctx ends with the call.
	Create(ctx context.Context, spec PodSpec) (Pod, error)
}

// Pod is a pod of one call, which uses it from one goroutine at a time.
//
// An error that is not an [*Error] counts as one of the kind [Other]. A method that waits must return when ctx ends.
type Pod interface {
	// Name is the pod's name, for messages.
	Name() string
	// Wait returns the pod's present status at the first call, later the next status that differs from the last one
	// returned. It returns nil if none comes within the timeout.
	Wait(ctx context.Context, timeout time.Duration) (*PodStatus, error)
	// ReadFile returns the content of a file below the output directory. If the file does not exist, the error is
	// fs.ErrNotExist by errors.Is.
	ReadFile(ctx context.Context, path string) ([]byte, error)
	// TailLogs returns the last lines of the log of the user's container.
	TailLogs(ctx context.Context, lines uint32) (string, error)
	// Delete deletes the pod and its input files. It is called again if it failed, and not at all if [PodSpec.Keep] is
	// set. Its ctx does not end with the call, which may have been cancelled.
	Delete(ctx context.Context) error
}

// PodSpec is what to run.
type PodSpec struct {
	// Namespace is the Kubernetes namespace. Backends without namespaces ignore it.
	Namespace string
	// Image is the image of the user's container.
	Image string
	// Command replaces the image's entry point, unless empty.
	Command []string
	// Args replaces the image's arguments, unless empty.
	Args []string
	// Env has the environment variables. A later one wins over an earlier one of the same name.
	Env []EnvVar
	// CPU is a Kubernetes quantity (250m), request and limit in one.
	CPU string
	// Memory is a Kubernetes quantity (128Mi), request and limit in one.
	Memory string
	// InputDir is the absolute path at which the input files appear, read-only. Without input files it is not used.
	InputDir string
	// InputFiles are the files in InputDir.
	InputFiles []File
	// OutputDir is the absolute path of an empty, writable directory that [Pod.ReadFile] reads from.
	OutputDir string
	// Lifetime is the time after which the pod ends even if nobody deletes it. It is longer than the call's own limits.
	Lifetime time.Duration
	// Keep leaves the pod in place when the call ends, for debugging.
	Keep bool
	// ServiceAccount is the Kubernetes service account to run as, empty for none. Deny it unless your policy allows it.
	ServiceAccount string
	// ImagePullSecrets names the secrets to pull the image with. Deny them unless your policy allows them.
	ImagePullSecrets []string
	// NodeSelector has the labels that the node must have. Deny them unless your policy allows them.
	NodeSelector map[string]string
}

// EnvVar is an environment variable.
type EnvVar struct{ Name, Value string }

// File is a file that the container finds in its input directory.
type File struct {
	// Path is relative to [PodSpec.InputDir], segments divided by /. Never empty, absolute or with a .. segment.
	Path    string
	Content []byte
}

// Phase is the phase of a pod, as Kubernetes defines it.
type Phase string

// The phases of a pod.
const (
	Pending   Phase = "pending"
	Running   Phase = "running"
	Succeeded Phase = "succeeded"
	Failed    Phase = "failed"
	Unknown   Phase = "unknown"
)

// PodStatus is the state of a pod at one moment.
type PodStatus struct {
	// Phase is Pending if it is empty.
	Phase Phase
	// Cause is why the pod as a whole is in its phase.
	Cause Cause
	// Unschedulable is the scheduler's message while no node fits the pod.
	Unschedulable *string
	// WaitsForRoom says that other pods of this host use the room that the pod needs. The pod waits for them, so the time
	// that it has to start does not run.
	WaitsForRoom bool
	// Disruption is set when something other than the call ends the pod: preemption, eviction, a lost node.
	Disruption *Cause
	// Deleted says that somebody other than the call deletes or has deleted the pod.
	Deleted bool
	// Main is the user's container.
	Main ContainerState
	// Sidecar is the container that serves files to the host, if the backend uses one.
	Sidecar *ContainerState
}

// Cause is the reason for a state. Either field may be empty.
type Cause struct {
	// Reason is one word, as Kubernetes spells it: ErrImagePull, Evicted.
	Reason string
	// Message is the sentence of Kubernetes.
	Message string
}

// ContainerState is the state of a container: it has ended, it runs, or it waits.
type ContainerState struct {
	// Terminated is set when the container has ended. It does not start again.
	Terminated *Terminated
	// Running says that the container runs.
	Running bool
	// Waiting is why the container has not started yet.
	Waiting Cause
}

// Terminated is how a container ended.
type Terminated struct {
	// ExitCode is 128 + N if signal N ended the container.
	ExitCode int32
	// Reason is one of Kubernetes' words: Completed, Error, OOMKilled, StartError and others.
	Reason string
	// Message is the container's termination message. If it wrote none and failed, it is the end of the log.
	Message string
}

// ErrorKind is the kind of an [Error].
type ErrorKind string

// The kinds of errors.
const (
	// PolicyDenied: the host's policy does not allow it.
	PolicyDenied ErrorKind = "policy-denied"
	// Forbidden: the cluster's access control or admission does not allow it.
	Forbidden ErrorKind = "forbidden"
	// QuotaExceeded: a quota of the namespace is used up.
	QuotaExceeded ErrorKind = "quota-exceeded"
	// Invalid: the cluster does not accept the request as it stands.
	Invalid ErrorKind = "invalid"
	// Gone: the pod does not exist any more.
	Gone ErrorKind = "gone"
	// TooLarge: a file, or all input files together, are too large.
	TooLarge ErrorKind = "too-large"
	// Unavailable: the cluster or the pod's file server could not be reached, also after retries.
	Unavailable ErrorKind = "unavailable"
	// Other is everything else.
	Other ErrorKind = "other"
)

// Error is why a request to pods failed. The message says what is wrong and what to do.
type Error struct {
	Kind ErrorKind
	// Message is not used by TooLarge.
	Message string
	// Missing is the rule whose absence made the request Forbidden, nil if the cause is another.
	Missing *Rule
	// Size and Limit are set if something is TooLarge, in bytes.
	Size, Limit uint64
}

func (e *Error) Error() string {
	if e.Kind == TooLarge {
		return fmt.Sprintf("%d bytes, more than the limit of %d bytes", e.Size, e.Limit)
	}
	return e.Message
}

// Rule is a permission that a Role must give.
type Rule struct {
	// Verb is create, get, list, watch or delete.
	Verb string
	// Resource is pods, pods/log, pods/portforward or configmaps.
	Resource string
	// Namespace is empty for the whole cluster.
	Namespace string
}
