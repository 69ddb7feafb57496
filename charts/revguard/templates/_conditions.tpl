{{- /*
Conditions (CEL) under which a write is sent to us. They keep away what no rule looks at, and must never fail: the API server
refuses a write (failurePolicy Fail) or forgets us (Ignore) where one does. So every field is asked for with has() first, and
`both` walks over object and oldObject, either of which may be null.
*/ -}}

{{- /* Keys of Istio and of ours: istio.io/rev, sidecar.istio.io/inject, revguard.dev/allow. */ -}}
{{- define "revguard.cel.key" -}}
matches('(^|[.])(istio[.]io|revguard[.]dev)/')
{{- end -}}

{{- /* Labels or annotations of metadata `m` have such a key. */ -}}
{{- define "revguard.cel.marked" -}}
(has({{ . }}.labels) && {{ . }}.labels.exists(k, k.{{ include "revguard.cel.key" $ }})) || (has({{ . }}.annotations) && {{ . }}.annotations.exists(k, k.{{ include "revguard.cel.key" $ }}))
{{- end -}}

{{- /* The expression holds for the object as it was or as it will be; it calls that `o`. */ -}}
{{- define "revguard.cel.both" -}}
[object, oldObject].exists(o, o != null && ({{ . }}))
{{- end -}}

{{- /* The expression holds for its pod template, which it calls `t`. */ -}}
{{- define "revguard.cel.template" -}}
has(o.spec) && (has(o.spec.jobTemplate) ? [o.spec.jobTemplate.spec.template] : has(o.spec.template) ? [o.spec.template] : []).exists(t, {{ . }})
{{- end -}}

{{- define "revguard.cel.container" -}}
(has(t.spec) && ((has(t.spec.containers) && t.spec.containers.exists(c, c.name == '{{ . }}')) || (has(t.spec.initContainers) && t.spec.initContainers.exists(c, c.name == '{{ . }}'))))
{{- end -}}

{{- /* Labels of a gateway; a rollout's second Deployment has lost those of installers. */ -}}
{{- define "revguard.cel.gatewayLabels" -}}
(has({{ . }}.labels) && ('gateway.istio.io/managed' in {{ . }}.labels || 'revguard.dev/rollout' in {{ . }}.labels || ('operator.istio.io/component' in {{ . }}.labels && {{ . }}.labels['operator.istio.io/component'] in ['IngressGateways', 'EgressGateways'])))
{{- end -}}

{{- /* Made by an implementation of the Gateway API. Workloads of Istio's are marked besides. */ -}}
{{- define "revguard.cel.ofGatewayClass" -}}
(request.resource.group != 'apps' && has(o.metadata.labels) && 'gateway.networking.k8s.io/gateway-class-name' in o.metadata.labels)
{{- end -}}

{{- define "revguard.cel.isGateway" -}}
{{- $template := printf "has(t.metadata) && (%s || (has(t.metadata.annotations) && 'inject.istio.io/templates' in t.metadata.annotations && t.metadata.annotations['inject.istio.io/templates'].contains('gateway')))" (include "revguard.cel.gatewayLabels" "t.metadata") -}}
{{- include "revguard.cel.both" (printf "%s || %s || (%s)" (include "revguard.cel.gatewayLabels" "o.metadata") (include "revguard.cel.ofGatewayClass" .) (include "revguard.cel.template" $template)) -}}
{{- end -}}

{{- define "revguard.cel.isIstiod" -}}
{{- include "revguard.cel.both" (include "revguard.cel.template" "has(t.metadata) && has(t.metadata.labels) && 'app' in t.metadata.labels && t.metadata.labels['app'] == 'istiod'") -}}
{{- end -}}

{{- /* A workload that has anything of Istio: a key on itself or on its pods, a proxy. */ -}}
{{- define "revguard.cel.touches" -}}
{{- $template := printf "(has(t.metadata) && (%s)) || %s" (include "revguard.cel.marked" "t.metadata") (include "revguard.cel.container" "istio-proxy") -}}
{{- include "revguard.cel.both" (printf "%s || (%s)" (include "revguard.cel.marked" "o.metadata") (include "revguard.cel.template" $template)) -}}
{{- end -}}

{{- define "revguard.cel.markedObject" -}}
{{- include "revguard.cel.both" (include "revguard.cel.marked" "o.metadata") -}}
{{- end -}}

{{- /* `field` of metadata differs. */ -}}
{{- define "revguard.cel.differs" -}}
(has(object.metadata.{{ . }}) ? object.metadata.{{ . }} : {}) != (has(oldObject.metadata.{{ . }}) ? oldObject.metadata.{{ . }} : {})
{{- end -}}

{{- define "revguard.cel.metadataChanged" -}}
({{ include "revguard.cel.differs" "labels" }} || {{ include "revguard.cel.differs" "annotations" }})
{{- end -}}

{{- define "revguard.cel.specChanged" -}}
((has(object.spec) ? object.spec : {}) != (has(oldObject.spec) ? oldObject.spec : {}))
{{- end -}}

{{- /* Not a write of status, of managed fields or of finalizers. */ -}}
{{- define "revguard.cel.changed" -}}
request.operation != 'UPDATE' || {{ include "revguard.cel.specChanged" . }} || {{ include "revguard.cel.metadataChanged" . }}
{{- end -}}

{{- /* Who only carries out what was judged when it was written, and we ourselves: nothing that we do may wait for us. */ -}}
{{- define "revguard.cel.writer" -}}
{{- $own := list "system:kube-controller-manager" "system:apiserver" "system:serviceaccount:kube-system:horizontal-pod-autoscaler" "system:serviceaccount:kube-system:generic-garbage-collector" -}}
{{- $own = concat $own (include "revguard.ownWriters" . | fromJsonArray) -}}
!has(request.userInfo.username) || !(request.userInfo.username in ['{{ join "', '" $own }}'] || (request.userInfo.username.startsWith('system:serviceaccount:kube-system:') && request.userInfo.username.endsWith('-controller')))
{{- end -}}

{{- define "revguard.cel.isScale" -}}
(has(request.subResource) && request.subResource == 'scale')
{{- end -}}

{{- /* Only a scale to zero can take the last pod away; replicas are absent when they are 0. */ -}}
{{- define "revguard.cel.toZero" -}}
(object != null && (!has(object.spec) || !has(object.spec.replicas) || object.spec.replicas == 0) && (oldObject == null || (has(oldObject.spec) && has(oldObject.spec.replicas) && oldObject.spec.replicas != 0)))
{{- end -}}

{{- /* Labels of a namespace that say who injects, or an exemption. A deletion may take a control plane along. */ -}}
{{- define "revguard.cel.speaksOfInjection" -}}
request.operation == 'DELETE' || {{ include "revguard.cel.both" (printf "%s || (has(o.metadata.labels) && 'istio-injection' in o.metadata.labels)" (include "revguard.cel.marked" "o.metadata")) }}
{{- end -}}

{{- define "revguard.cel.metadataChangedIfUpdated" -}}
request.operation != 'UPDATE' || {{ include "revguard.cel.metadataChanged" . }}
{{- end -}}

{{- define "revguard.cel.noGateway" -}}
!{{ include "revguard.cel.isGateway" . }}
{{- end -}}

{{- define "revguard.cel.noIstiod" -}}
!{{ include "revguard.cel.isIstiod" . }}
{{- end -}}

{{- define "revguard.cel.gatewayOrToZero" -}}
{{ include "revguard.cel.isScale" . }} ? {{ include "revguard.cel.toZero" . }} : {{ include "revguard.cel.isGateway" . }}
{{- end -}}

{{- /* An autoscaler that may go to zero. */ -}}
{{- define "revguard.cel.autoscalesToZero" -}}
(request.resource.group == 'autoscaling' && object != null && has(object.spec) && has(object.spec.minReplicas) && object.spec.minReplicas == 0)
{{- end -}}

{{- /* Of an autoscaler or a disruption budget nobody can tell whether its target is a gateway. */ -}}
{{- define "revguard.cel.touchesIstio" -}}
request.resource.group in ['autoscaling', 'policy'] ? !{{ include "revguard.cel.autoscalesToZero" . }} : {{ include "revguard.cel.touches" . }}
{{- end -}}

{{- /*
By resource. An istiod's workload, and parts of the mesh that every node has, when they go; Services that are tags, change what
they lead to, or go; what an istiod is made of, when it goes; autoscalers that may go to zero; custom resources of installers.
*/ -}}
{{- define "revguard.cel.partOfControlPlane" -}}
{{- $workload := printf "%s || (request.operation == 'DELETE' && request.resource.resource == 'daemonsets' && %s && %s)" (include "revguard.cel.isIstiod" .) (include "revguard.cel.touches" .) (include "revguard.cel.noGateway" .) -}}
{{- $service := printf "request.operation == 'DELETE' || (request.operation == 'UPDATE' && %s) || %s" (include "revguard.cel.specChanged" .) (include "revguard.cel.markedObject" .) -}}
{{- $hpa := printf "%s && %s" (include "revguard.cel.autoscalesToZero" .) (include "revguard.cel.noGateway" .) -}}
{{- $access := printf "oldObject != null && (oldObject.metadata.name.startsWith('istiod') || %s || %s || (has(oldObject.metadata.labels) && 'app' in oldObject.metadata.labels && oldObject.metadata.labels['app'] == 'istiod'))" (include "revguard.cel.markedObject" .) (include "revguard.cel.both" (include "revguard.cel.ofGatewayClass" .)) -}}
request.resource.group == 'apps' ? ({{ $workload }}) : request.resource.resource == 'services' ? ({{ $service }}) : request.resource.group == 'autoscaling' ? ({{ $hpa }}) : request.resource.resource == 'configmaps' ? (oldObject != null && oldObject.metadata.name.startsWith('istio')) : request.resource.resource == 'customresourcedefinitions' ? (oldObject != null && oldObject.metadata.name.endsWith('.istio.io')) : (request.resource.resource == 'serviceaccounts' || request.resource.group == 'rbac.authorization.k8s.io') ? ({{ $access }}) : true
{{- end -}}

{{- /* Configuration that names a revision, an owner or an exemption; a Gateway of the Gateway API always belongs to a revision. */ -}}
{{- define "revguard.cel.namesRevision" -}}
(request.resource.group == 'gateway.networking.k8s.io' && request.resource.resource == 'gateways') || {{ include "revguard.cel.markedObject" . }}
{{- end -}}

{{- define "revguard.cel.mendable" -}}
request.resource.resource == 'namespaces' ? ({{ include "revguard.cel.speaksOfInjection" . }}) : ({{ include "revguard.cel.touches" . }} && {{ include "revguard.cel.noIstiod" . }})
{{- end -}}

{{- /* What an approval says, or who is said to have given it. */ -}}
{{- define "revguard.cel.approvalChanged" -}}
['revguard.dev/approve', 'revguard.dev/approved-by'].exists(k, (has(object.metadata.annotations) && k in object.metadata.annotations ? object.metadata.annotations[k] : '') != (oldObject != null && has(oldObject.metadata.annotations) && k in oldObject.metadata.annotations ? oldObject.metadata.annotations[k] : ''))
{{- end -}}
