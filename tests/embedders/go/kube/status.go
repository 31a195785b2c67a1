package kube

import (
	"hopsk8s"
	corev1 "k8s.io/api/core/v1"
)

// status converts a pod's status into the contract's.
func status(p *corev1.Pod) hopsk8s.PodStatus {
	s := hopsk8s.PodStatus{
		Phase:   phase(p.Status.Phase),
		Cause:   hopsk8s.Cause{Reason: p.Status.Reason, Message: p.Status.Message},
		Deleted: p.DeletionTimestamp != nil,
		Main:    containerState(p, mainContainer),
		Sidecar: new(containerState(p, sidecarContainer)),
	}
	for _, c := range p.Status.Conditions {
		switch {
		case c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse:
			s.Unschedulable = new(c.Message)
		case c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue:
			s.Disruption = &hopsk8s.Cause{Reason: c.Reason, Message: c.Message}
		}
	}
	return s
}

func phase(p corev1.PodPhase) hopsk8s.Phase {
	switch p {
	case corev1.PodPending, "":
		return hopsk8s.Pending
	case corev1.PodRunning:
		return hopsk8s.Running
	case corev1.PodSucceeded:
		return hopsk8s.Succeeded
	case corev1.PodFailed:
		return hopsk8s.Failed
	default:
		return hopsk8s.Unknown
	}
}

func containerState(p *corev1.Pod, name string) hopsk8s.ContainerState {
	for _, c := range p.Status.ContainerStatuses {
		switch {
		case c.Name != name:
			continue
		case c.State.Terminated != nil:
			t := c.State.Terminated
			return hopsk8s.ContainerState{
				Terminated: &hopsk8s.Terminated{ExitCode: t.ExitCode, Reason: t.Reason, Message: t.Message},
			}
		case c.State.Running != nil:
			return hopsk8s.ContainerState{Running: true}
		case c.State.Waiting != nil:
			return hopsk8s.ContainerState{
				Waiting: hopsk8s.Cause{Reason: c.State.Waiting.Reason, Message: c.State.Waiting.Message},
			}
		}
	}
	return hopsk8s.ContainerState{}
}
