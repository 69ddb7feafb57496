{{- define "labels" -}}
app: istiod
istio.io/rev: {{ .Values.revision | quote }}
operator.istio.io/component: Pilot
install.operator.istio.io/owning-resource: unknown
release: {{ .Release.Name }}
app.kubernetes.io/name: istiod
app.kubernetes.io/part-of: istio
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.Version | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "name" -}}
istiod-{{ .Values.revision }}
{{- end }}

{{- define "client" -}}
service: {name: {{ include "name" .root }}, namespace: {{ .root.Release.Namespace }}, path: {{ .path }}, port: 443}
caBundle: {{ .ca }}
{{- end }}
