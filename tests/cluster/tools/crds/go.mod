// Schemas of public custom resources, for the tests. Only these modules' files are read; nothing of them is built.
module revguard.dev/test-crds

go 1.26.0

require (
	istio.io/api v1.31.1
	sigs.k8s.io/gateway-api v1.4.1
)
