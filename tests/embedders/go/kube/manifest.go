package kube

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"hopsk8s"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	mainContainer    = "main"
	sidecarContainer = "hiphops-sidecar"
	serverImage      = "halverneus/static-file-server:v1.8.10"
	serverPort       = 8917

	outputVolume = "hiphops"
	inputVolume  = "hiphops-input"
	// The path of the output volume in the result server's container.
	servedDir = "/output"
	// The API server does not accept a larger ConfigMap.
	mostInputBytes = 1 << 20
)

var labels = map[string]string{
	"app.kubernetes.io/managed-by": "hops-k8s",
	"hiphops-io/for":               "workflow-step",
}

// check refuses a spec that this backend cannot or must not run.
func check(spec hopsk8s.PodSpec) error {
	denied := func(name, asked string) error {
		return &hopsk8s.Error{
			Kind:    hopsk8s.PolicyDenied,
			Message: fmt.Sprintf("this host does not allow %s (%s); leave it out", name, asked),
		}
	}
	switch {
	case spec.ServiceAccount != "":
		return denied("service_account", spec.ServiceAccount)
	case len(spec.ImagePullSecrets) != 0:
		return denied("image_pull_secrets", strings.Join(spec.ImagePullSecrets, ", "))
	case len(spec.NodeSelector) != 0:
		return denied("node_selector", strings.Join(slices.Sorted(maps.Keys(spec.NodeSelector)), ", "))
	}
	for name, quantity := range map[string]string{"cpu": spec.CPU, "memory": spec.Memory} {
		if _, err := resource.ParseQuantity(quantity); err != nil {
			return &hopsk8s.Error{Kind: hopsk8s.Invalid, Message: fmt.Sprintf("%s: %q is not a Kubernetes quantity", name, quantity)}
		}
	}
	size := 0
	for _, f := range spec.InputFiles {
		size += len(f.Content)
	}
	if size > mostInputBytes {
		return &hopsk8s.Error{Kind: hopsk8s.TooLarge, Size: uint64(size), Limit: mostInputBytes}
	}
	return nil
}

func podManifest(name string, spec hopsk8s.PodSpec) *corev1.Pod {
	volumes := []corev1.Volume{{
		Name:         outputVolume,
		VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	}}
	mounts := []corev1.VolumeMount{{Name: outputVolume, MountPath: spec.OutputDir}}
	if len(spec.InputFiles) != 0 {
		volumes = append(volumes, inputs(name, spec.InputFiles))
		mounts = append(mounts, corev1.VolumeMount{Name: inputVolume, MountPath: spec.InputDir, ReadOnly: true})
	}
	seconds := min((spec.Lifetime+time.Second-1)/time.Second, math.MaxInt32)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			// The user's container first: the node starts them in this order.
			Containers:                   []corev1.Container{userContainer(spec, mounts), serverContainer()},
			Volumes:                      volumes,
			RestartPolicy:                corev1.RestartPolicyNever,
			ActiveDeadlineSeconds:        new(int64(seconds)),
			AutomountServiceAccountToken: new(false),
			EnableServiceLinks:           new(false),
		},
	}
}

func userContainer(spec hopsk8s.PodSpec, mounts []corev1.VolumeMount) corev1.Container {
	// Kubernetes merges entries of one name by keeping the last, but warns about them.
	values := map[string]string{}
	for _, e := range spec.Env {
		values[e.Name] = e.Value
	}
	var env []corev1.EnvVar
	for _, name := range slices.Sorted(maps.Keys(values)) {
		env = append(env, corev1.EnvVar{Name: name, Value: values[name]})
	}
	limits := quantities(spec.CPU, spec.Memory)
	return corev1.Container{
		Name:         mainContainer,
		Image:        spec.Image,
		Command:      spec.Command,
		Args:         spec.Args,
		Env:          env,
		Resources:    corev1.ResourceRequirements{Requests: limits, Limits: limits},
		VolumeMounts: mounts,
		// The end of a failed container's log then comes with its status, without a request.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
}

// serverContainer is the result server. Its only privilege is to read the files of every owner.
func serverContainer() corev1.Container {
	return corev1.Container{
		Name:            sidecarContainer,
		Image:           serverImage,
		ImagePullPolicy: corev1.PullIfNotPresent,
		Env: []corev1.EnvVar{
			{Name: "PORT", Value: strconv.Itoa(serverPort)},
			{Name: "FOLDER", Value: servedDir},
			{Name: "CORS", Value: "false"},
		},
		Ports:        []corev1.ContainerPort{{Name: "http", ContainerPort: serverPort}},
		Resources:    corev1.ResourceRequirements{Requests: quantities("10m", "16Mi"), Limits: quantities("100m", "64Mi")},
		VolumeMounts: []corev1.VolumeMount{{Name: outputVolume, MountPath: servedDir, ReadOnly: true}},
		SecurityContext: &corev1.SecurityContext{
			RunAsUser:                new(int64(0)),
			ReadOnlyRootFilesystem:   new(true),
			AllowPrivilegeEscalation: new(false),
			Capabilities: &corev1.Capabilities{
				Drop: []corev1.Capability{"ALL"},
				// The user's container may run as any user and write files with any mode.
				Add: []corev1.Capability{"DAC_OVERRIDE"},
			},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
	}
}

func inputs(name string, files []hopsk8s.File) corev1.Volume {
	var items []corev1.KeyToPath
	for i, f := range files {
		items = append(items, corev1.KeyToPath{Key: key(i), Path: f.Path})
	}
	return corev1.Volume{
		Name: inputVolume,
		VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: name},
			Items:                items,
		}},
	}
}

// configMap has the input files of a pod. The cluster deletes it with the pod.
func configMap(owner *corev1.Pod, files []hopsk8s.File) *corev1.ConfigMap {
	c := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:            owner.Name,
			Labels:          labels,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: owner.Name, UID: owner.UID}},
		},
		Immutable:  new(true),
		Data:       map[string]string{},
		BinaryData: map[string][]byte{},
	}
	for i, f := range files {
		if utf8.Valid(f.Content) {
			c.Data[key(i)] = string(f.Content)
		} else {
			c.BinaryData[key(i)] = f.Content
		}
	}
	return c
}

// key names a file in a ConfigMap, whose keys cannot be paths.
func key(i int) string { return "f" + strconv.Itoa(i) }

func quantities(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(cpu),
		corev1.ResourceMemory: resource.MustParse(memory),
	}
}
