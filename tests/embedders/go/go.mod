module hopsk8s

go 1.26.0

require (
	github.com/bytecodealliance/wasmtime-go/v39 v39.0.1 // indirect
	k8s.io/api v0.37.2 // indirect
	k8s.io/apimachinery v0.37.2 // indirect
	k8s.io/client-go v0.37.2 // indirect
)
