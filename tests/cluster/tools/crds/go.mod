// Schemas of public custom resources, for the tests. Only these modules' files are read; nothing of them is built.
module revguard.dev/test-crds

go 1.24.0

require (
	github.com/openreports/reports-api v0.2.1
	istio.io/api v1.31.1
	sigs.k8s.io/gateway-api v1.4.1
)
