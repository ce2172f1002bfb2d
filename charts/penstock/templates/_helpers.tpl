{{- define "penstock.name" -}}
{{- if .Values.nameOverride }}{{ .Values.nameOverride }}
{{- else if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Of the pods that clients reach: of a group of hosts the first. */ -}}
{{- define "penstock.serverSelector" -}}
{{ include "penstock.selector" . }}
{{- if gt (int .Values.hosts.count) 1 }}
leaderworkerset.sigs.k8s.io/worker-index: "0"
{{- end }}
{{- end }}

{{- define "penstock.target" -}}
{{- if gt (int .Values.hosts.count) 1 -}}
{apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, name: {{ include "penstock.name" . }}}
{{- else -}}
{apiVersion: apps/v1, kind: Deployment, name: {{ include "penstock.name" . }}}
{{- end -}}
{{- end }}

{{- define "penstock.balancerSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-balancer
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "penstock.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "penstock.claim" -}}
{{- .Values.cache.existingClaim | default (printf "%s-models" (include "penstock.name" .)) -}}
{{- end }}

{{- define "penstock.batchClaim" -}}
{{- .Values.batch.existingClaim | default (printf "%s-batches" (include "penstock.name" .)) -}}
{{- end }}

{{- /* Options of the launcher. Helm reads all numbers as fractions, and writes large ones as 1e+10. */ -}}
{{- define "penstock.options" -}}
{{- range $name, $value := .Values.options }}
{{- $values := ternary $value (list $value) (kindIs "slice" $value) }}
{{- range $one := $values }}
{{- if kindIs "bool" $one }}
{{- if $one }}
- {{ printf "--%s" $name | quote }}
{{- end }}
{{- else if kindIs "float64" $one }}
- {{ printf "--%s=%v" $name (ternary (int64 $one) $one (eq $one (floor $one))) | quote }}
{{- else if kindIs "map" $one }}
- {{ printf "--%s=%s" $name (toJson $one) | quote }}
{{- else }}
- {{ printf "--%s=%v" $name $one | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Most replicas there can be. */ -}}
{{- define "penstock.most" -}}
{{- if eq .Values.autoscaling.mode "none" }}{{ .Values.replicas }}{{ else }}{{ .Values.autoscaling.maxReplicas }}{{ end -}}
{{- end }}

{{- /* What a schema cannot say: rules between numbers. */ -}}
{{- define "penstock.check" -}}
{{- $drain := .Values.drain }}
{{- $needed := add $drain.preStopSeconds $drain.timeoutSeconds 15 }}
{{- if lt (int $drain.terminationGracePeriodSeconds) (int $needed) }}
{{- fail (printf "drain.terminationGracePeriodSeconds must be at least preStopSeconds + timeoutSeconds + 15 = %d, not %d: the pod would be killed while requests run" (int $needed) (int $drain.terminationGracePeriodSeconds)) }}
{{- end }}
{{- $scaling := .Values.autoscaling }}
{{- if ne $scaling.mode "none" }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail (printf "autoscaling.minReplicas must be at most maxReplicas: %d and %d were given" (int $scaling.minReplicas) (int $scaling.maxReplicas)) }}
{{- end }}
{{- if lt (int $scaling.scaleDownStabilizationSeconds) (int $drain.terminationGracePeriodSeconds) }}
{{- fail (printf "autoscaling.scaleDownStabilizationSeconds must be at least drain.terminationGracePeriodSeconds: %d and %d were given" (int $scaling.scaleDownStabilizationSeconds) (int $drain.terminationGracePeriodSeconds)) }}
{{- end }}
{{- end }}
{{- if and (eq (int .Values.rollingUpdate.maxSurge) 0) (eq (int .Values.rollingUpdate.maxUnavailable) 0) }}
{{- fail "rollingUpdate.maxSurge and maxUnavailable must not both be 0: no pod could be replaced" }}
{{- end }}
{{- if and .Values.cache.enabled (not .Values.cache.existingClaim) (gt (mul (add (include "penstock.most" . | int) .Values.rollingUpdate.maxSurge) .Values.hosts.count) 1) (ne .Values.cache.accessMode "ReadWriteMany") }}
{{- fail (printf "cache.accessMode must be ReadWriteMany where there can be several pods (replicas and rollingUpdate.maxSurge), not %s: they run on several nodes (or set cache.enabled to false, or cache.existingClaim)" .Values.cache.accessMode) }}
{{- end }}
{{- if and .Values.batch.enabled (gt (add (include "penstock.most" . | int) .Values.rollingUpdate.maxSurge) 1) }}
{{- fail "batch.enabled needs one replica, no autoscaling and rollingUpdate.maxSurge 0: files and batches are those of one server" }}
{{- end }}
{{- end }}

{{- define "penstock.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "penstock.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
fsGroup: 1000
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "penstock.hubToken" -}}
{{- with .Values.existingSecrets.hubToken }}
{{- if .name }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ .name }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{- define "penstock.downloadCommand" -}}
text-generation-server download-weights {{ .Values.model.id | squote }}{{ with .Values.model.revision }} --revision {{ . | squote }}{{ end }}
{{- end }}
