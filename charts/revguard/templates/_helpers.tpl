{{- /* Names, labels and what several templates share. */ -}}

{{- define "revguard.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- if contains $name .Release.Name -}}{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* What is selected by; never changes within a release. Takes (list $ component). */ -}}
{{- define "revguard.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: revguard
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- /* metadata.labels and metadata.annotations. Takes (list $ component); a component "" is of both. */ -}}
{{- define "revguard.metadata" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
labels:
  app.kubernetes.io/name: revguard
  app.kubernetes.io/instance: {{ $root.Release.Name }}
  {{- if $component }}
  app.kubernetes.io/component: {{ $component }}
  {{- end }}
  app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ $root.Release.Service }}
  helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
  {{- with $root.Values.extraLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $root.Values.extraAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "revguard.image" -}}
{{- $i := .Values.image -}}
{{- with $i.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- $i.repository -}}
{{- if $i.digest }}@{{ $i.digest }}{{ else }}:{{ $i.tag | default .Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- define "revguard.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "revguard.tlsSecret" -}}
{{- if eq .Values.certificates.mode "existingSecret" -}}{{ .Values.certificates.existingSecret }}
{{- else -}}{{ include "revguard.fullname" . }}-webhook-tls{{- end -}}
{{- end -}}

{{- /*
The policy file: .Values.policy, the mode, and our own ServiceAccounts among the exempt writers. Helm reads values files as YAML 1.1,
where Off without quotes is false.
*/ -}}
{{- define "revguard.policy" -}}
{{- $policy := deepCopy .Values.policy -}}
{{- $_ := set $policy "mode" .Values.mode -}}
{{- range $code, $action := get $policy "rules" | default dict -}}
{{- if kindIs "bool" $action -}}{{- $_ := set $policy.rules $code "Off" -}}{{- end -}}
{{- end -}}
{{- /* As each mutation writes it: NS001 is a choice, NS005 a name, the others are switches. */ -}}
{{- range $code, $value := get $policy "mutations" | default dict -}}
{{- if or (eq (toString $value) "false") (eq (toString $value) "Off") -}}
{{- if eq $code "NS001" -}}{{- $_ := set $policy.mutations $code "Off" -}}
{{- else if eq $code "NS005" -}}{{- $_ := unset $policy.mutations $code -}}
{{- else -}}{{- $_ := set $policy.mutations $code false -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- $exempt := get $policy "exempt" | default dict -}}
{{- $own := include "revguard.ownWriters" . | fromJsonArray -}}
{{- $_ := set $exempt "writers" (concat (get $exempt "writers" | default list) $own | uniq) -}}
{{- $_ := set $policy "exempt" $exempt -}}
{{- toYaml $policy -}}
{{- end -}}

{{- define "revguard.ownWriters" -}}
{{- $base := printf "system:serviceaccount:%s:%s" .Release.Namespace (include "revguard.fullname" .) -}}
{{- list (printf "%s-webhook" $base) (printf "%s-controller" $base) | toJson -}}
{{- end -}}

{{- /* Some mutation is switched on. */ -}}
{{- define "revguard.mutates" -}}
{{- range $code, $value := (get .Values.policy "mutations" | default dict) -}}
{{- if and $value (ne (toString $value) "Off") -}}yes{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Some repair is switched on. */ -}}
{{- define "revguard.repairs" -}}
{{- $repair := get .Values.policy "repair" | default dict -}}
{{- if kindIs "map" $repair -}}
{{- range $code, $on := $repair -}}{{- if $on -}}yes{{- end -}}{{- end -}}
{{- else if eq (toString $repair) "all" -}}yes{{- end -}}
{{- end -}}

{{- /* auto, true or false. Takes (list $ value). */ -}}
{{- define "revguard.monitoring" -}}
{{- $value := toString (index . 1) -}}
{{- if or (eq $value "true") (and (eq $value "auto") ((index . 0).Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}yes{{- end -}}
{{- end -}}

{{- /* There may be rollouts, and istiods are asked who is connected to them. */ -}}
{{- define "revguard.istiodToken" -}}
{{- with .Values.rollouts -}}{{- if and .istiod.ask (or .clusterWide .namespaces) -}}yes{{- end -}}{{- end -}}
{{- end -}}

{{- /* Rules of a role, from a generated file. FULLNAME stands for the prefix of our names. Takes (list $ file). */ -}}
{{- define "revguard.rules" -}}
{{- $root := index . 0 -}}
{{- $root.Files.Get (index . 1) | replace "FULLNAME" (include "revguard.fullname" $root) -}}
{{- end -}}

{{- define "revguard.securityContext" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- /*
What the values say over what is ours; null leaves a field out, for clusters that choose it themselves. A port below 1024 is opened to
whoever is not root by a sysctl of the pod alone. Takes (list $ ports).
*/ -}}
{{- define "revguard.podSecurityContext" -}}
{{- $root := index . 0 -}}
{{- $context := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- range $key, $value := deepCopy ($root.Values.podSecurityContext | default dict) -}}
{{- if kindIs "invalid" $value -}}{{- $_ := unset $context $key -}}{{- else -}}{{- $_ := set $context $key $value -}}{{- end -}}
{{- end -}}
{{- $lowest := 1024 -}}
{{- range index . 1 -}}{{- $lowest = min $lowest . -}}{{- end -}}
{{- if lt (int $lowest) 1024 -}}
{{- $sysctls := get $context "sysctls" | default list -}}
{{- $name := "net.ipv4.ip_unprivileged_port_start" -}}
{{- $there := false -}}
{{- range $sysctls -}}{{- if eq .name $name -}}{{- $there = true -}}{{- end -}}{{- end -}}
{{- if not $there -}}{{- $sysctls = append $sysctls (dict "name" $name "value" (toString $lowest)) -}}{{- end -}}
{{- $_ := set $context "sysctls" $sysctls -}}
{{- end -}}
securityContext: {{- toYaml $context | nindent 2 }}
{{- end -}}

{{- /* Who a pod is: names for what it reads and holds. */ -}}
{{- define "revguard.env" -}}
env:
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
{{- end -}}

{{- /* Takes (list $ component values). */ -}}
{{- define "revguard.placement" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
{{- with $root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if $values.topologySpreadConstraints }}
{{- toYaml $values.topologySpreadConstraints | nindent 0 }}
{{- else }}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
# Not DoNotSchedule: on a single node, or with a zone down, a crowded guard is better than none.
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  # A rollout must not count the pods that it replaces.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels:
      {{- include "revguard.selector" (list $root (index $ 1)) | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* A duration of the schema in seconds: numbers, each with one of s, m and h. */ -}}
{{- define "revguard.seconds" -}}
{{- $all := 0 -}}
{{- range regexFindAll "[0-9]+[smh]" . -1 -}}
{{- $all = add $all (mul (regexFind "^[0-9]+" . | atoi) (get (dict "s" 1 "m" 60 "h" 3600) (regexFind "[smh]$" .))) -}}
{{- end -}}
{{- $all -}}
{{- end -}}

{{- /* What a schema cannot say. Every problem stops the installation with one sentence. */ -}}
{{- define "revguard.verify" -}}
{{- $ns := .Release.Namespace -}}
{{- if hasPrefix "kube-" $ns -}}
{{- fail (printf "\n\nrevguard cannot be installed into %s: writes there are never guarded, and the cluster's own parts must start without us.\nUse a namespace of its own: helm install %s … -n revguard-system --create-namespace\n" $ns .Release.Name) -}}
{{- end -}}
{{- if eq $ns "istio-system" -}}
{{- fail (printf "\n\nrevguard cannot be installed into %s, the namespace of an istiod: its own namespace is never guarded, so that control plane would not be.\nUse a namespace of its own: helm install %s … -n revguard-system --create-namespace\n" $ns .Release.Name) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" (include "revguard.fullname" .)) -}}
{{- fail (printf "\n\n%s cannot begin the names of Services: those are small letters, digits and dashes, and begin with a letter. Set fullnameOverride.\n" (include "revguard.fullname" .)) -}}
{{- end -}}
{{- if hasKey .Values.policy "mode" -}}
{{- fail "\n\npolicy.mode: the mode of the chart is the value `mode`, beside `policy`, not in it.\n" -}}
{{- end -}}
{{- with .Values.certificates -}}
{{- if eq .mode "existingSecret" -}}
{{- if not (and .existingSecret .caBundle) -}}
{{- fail "\n\ncertificates.mode existingSecret needs certificates.existingSecret (the name of a kubernetes.io/tls Secret) and certificates.caBundle (its CA in PEM: the API server trusts nothing else).\n" -}}
{{- end -}}
{{- else if eq .mode "own" -}}
{{- /* As the controller checks it, which would end with this sentence. */ -}}
{{- $ca := include "revguard.seconds" .caValidity | int64 -}}
{{- if gt (include "revguard.seconds" .certValidity | int64) $ca -}}
{{- fail (printf "\n\ncertificates.certValidity %s is more than certificates.caValidity %s: a certificate cannot outlast its CA.\n" .certValidity .caValidity) -}}
{{- end -}}
{{- if gt (mul 12 (include "revguard.seconds" .overlap | int64)) $ca -}}
{{- fail (printf "\n\ncertificates.overlap %s: certificates.caValidity must be at least twelve times as long, and is %s.\n" .overlap .caValidity) -}}
{{- end -}}
{{- end -}}
{{- with .certManager -}}
{{- if and (eq $.Values.certificates.mode "certManager") (not .issuerRef) -}}
{{- if gt (include "revguard.seconds" .duration | int64) 31536000 -}}
{{- fail (printf "\n\ncertificates.certManager.duration %s: the CA of the chart signs for 8760h at most; longer needs an issuerRef of yours.\n" .duration) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .existingSecret (ne .mode "existingSecret") -}}
{{- fail (printf "\n\ncertificates.existingSecret is set, and certificates.mode is %s: set the mode to existingSecret, or leave the Secret out.\n" .mode) -}}
{{- end -}}
{{- end -}}
{{- with get (get .Values.policy "stale" | default dict) "age" -}}
{{- if lt (include "revguard.seconds" . | int64) 180 -}}
{{- fail (printf "\n\npolicy.stale.age %s is less than 3m: a healthy view is up to 80 s old, and a watch that went silent is renewed after 165 s.\n" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.clientCertificate.name (not .Values.clientCertificate.caConfigMap) -}}
{{- fail "\n\nclientCertificate.name without clientCertificate.caConfigMap: nothing says who signs that certificate.\n" -}}
{{- end -}}
{{- if .Values.webhook.hostNetwork -}}
{{- range $key := list "port" "healthPort" -}}
{{- $port := int (get $.Values.webhook $key) -}}
{{- if lt $port 1024 -}}
{{- fail (printf "\n\nwebhook.hostNetwork with webhook.%s %d: ports of a node below 1024 are for root, which revguard is not. Choose a higher one that the firewall lets through.\n" $key $port) -}}
{{- end -}}
{{- if eq $port 10250 -}}
{{- fail (printf "\n\nwebhook.hostNetwork with webhook.%s 10250: on the nodes that port is the kubelet's.\n" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq (int .Values.webhook.port) (int .Values.webhook.healthPort) -}}
{{- fail "\n\nwebhook.port and webhook.healthPort are the same.\n" -}}
{{- end -}}
{{- end -}}
