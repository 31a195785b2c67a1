package hopsk8s

import (
	"context"
	"fmt"
	"time"
)

// Pods is where the containers of calls run. Calls use it at the same time.
type Pods interface {
	// Create creates a pod with its input files and returns without waiting for it to start. ctx ends with the call.
	Create(ctx context.Context, spec PodSpec) (Pod, error)
}

// Pod is a pod of one call, which uses it from one goroutine at a time.
//
// Errors that are not an [*Error] count as one of the kind [Other]. What waits has to return early when ctx ends.
type Pod interface {
	// Name is the pod's name, for messages.
	Name() string
	// Wait returns the pod's status: at the first call the present one, afterwards the next one that differs from the
	// last returned. It returns nil if there is none within the timeout.
	Wait(ctx context.Context, timeout time.Duration) (*PodStatus, error)
	// ReadFile returns the content of a file below the output directory. The error for one that does not exist
	// satisfies errors.Is(err, fs.ErrNotExist).
	ReadFile(ctx context.Context, path string) ([]byte, error)
	// TailLogs returns the last lines of the user's container's log.
	TailLogs(ctx context.Context, lines uint32) (string, error)
	// Delete deletes the pod and its input files. It is not called if [PodSpec.Keep] is set, and again if it failed.
	// Its context is not the call's, which may have been cancelled.
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
	// InputDir is the absolute path at which the input files appear, read-only. Where there are none, nothing is put there.
	InputDir string
	// InputFiles are put into InputDir.
	InputFiles []File
	// OutputDir is the absolute path of an empty, writable directory that [Pod.ReadFile] reads from.
	OutputDir string
	// Lifetime is the time after which the pod ends even if its caller is gone: a last resort, not the call's own time limit.
	Lifetime time.Duration
	// Keep leaves the pod where it is when the call ends, for debugging.
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

// Phase is where a pod is in its life, in Kubernetes' own terms.
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
	// Unschedulable has the scheduler's words, while it finds no node for the pod.
	Unschedulable *string
	// WaitsForRoom says that what the pod needs is taken up by other pods of this host, for which it is to wait, so that
	// its time to start does not run.
	WaitsForRoom bool
	// Disruption is set when somebody other than the call ends the pod: preemption, eviction, a node that is gone.
	Disruption *Cause
	// Deleted says that the pod is deleted or being deleted, and not by this call.
	Deleted bool
	// Main is the user's container.
	Main ContainerState
	// Sidecar is the container through which the host reads files, where it uses one.
	Sidecar *ContainerState
}

// Cause is why something is as it is. Either may be empty.
type Cause struct {
	// Reason is one word in Kubernetes' spelling: ErrImagePull, Evicted.
	Reason string
	// Message is Kubernetes' own sentence.
	Message string
}

// ContainerState is what a container does: it has ended, or it runs, or else it waits.
type ContainerState struct {
	// Terminated is set when the container has ended, never to start again.
	Terminated *Terminated
	// Running says that the container has started and not ended.
	Running bool
	// Waiting is what a container that has not started waits for.
	Waiting Cause
}

// Terminated is how a container ended.
type Terminated struct {
	// ExitCode is 128 + N when signal N ended the container.
	ExitCode int32
	// Reason is one of Kubernetes' words: Completed, Error, OOMKilled, StartError and others.
	Reason string
	// Message is the container's termination message; where it wrote none and failed, the end of its log.
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
	// Gone: the pod is not there any more.
	Gone ErrorKind = "gone"
	// TooLarge: a file, or all input files together, are too large.
	TooLarge ErrorKind = "too-large"
	// Unavailable: the cluster, or the pod's file server, could not be reached; retries are spent.
	Unavailable ErrorKind = "unavailable"
	// Other is everything else.
	Other ErrorKind = "other"
)

// Error is why pods could not do what was asked. The message names the thing and what to do about it.
type Error struct {
	Kind ErrorKind
	// Message is not used by TooLarge.
	Message string
	// Missing is the rule for want of which something is Forbidden, nil if it is for another reason.
	Missing *Rule
	// Size and Limit are those of what is TooLarge, in bytes.
	Size, Limit uint64
}

func (e *Error) Error() string {
	if e.Kind == TooLarge {
		return fmt.Sprintf("%d bytes, more than the limit of %d bytes", e.Size, e.Limit)
	}
	return e.Message
}

// Rule is what a Role must allow.
type Rule struct {
	// Verb is create, get, list, watch or delete.
	Verb string
	// Resource is pods, pods/log, pods/portforward or configmaps.
	Resource string
	// Namespace is empty for the whole cluster.
	Namespace string
}
