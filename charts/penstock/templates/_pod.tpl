{{- /* A pod that serves, or (worker) one that holds shards for another. */ -}}
{{- define "penstock.podTemplate" -}}
{{- $root := .root }}
{{- $worker := .worker }}
{{- $values := .root.Values }}
{{- with .root }}
metadata:
  labels: {{- include "penstock.labels" . | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  {{- with .Values.serviceAccount.name }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.drain.terminationGracePeriodSeconds }}
  securityContext: {{- include "penstock.podSecurity" . | nindent 4 }}
  {{- if .Values.download.enabled }}
  initContainers:
    - name: wait-for-model
      image: {{ include "penstock.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext: {{- include "penstock.security" . | nindent 8 }}
      command:
        - sh
        - -c
        - {{ printf "until %s; do sleep 10; done" (include "penstock.downloadCommand" .) | quote }}
      env:
        - {name: HF_HOME, value: /data}
        - {name: HF_HUB_OFFLINE, value: "1"}
      resources:
        requests: {cpu: 100m, memory: 256Mi}
        limits: {memory: 1Gi}
      volumeMounts:
        - {name: models, mountPath: /data, readOnly: true}
        - {name: tmp, mountPath: /tmp}
  {{- end }}
  containers:
    - name: penstock
      image: {{ include "penstock.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      securityContext: {{- include "penstock.security" . | nindent 8 }}
      args:
        {{- with .Values.model.id }}
        - {{ printf "--model-id=%s" . | quote }}
        {{- end }}
        {{- with .Values.model.revision }}
        - {{ printf "--revision=%s" . | quote }}
        {{- end }}
        - --num-shard={{ mul .Values.numShard .Values.hosts.count }}
        {{- if gt (int .Values.hosts.count) 1 }}
        - --nnodes={{ .Values.hosts.count }}
        - --master-port={{ .Values.hosts.port }}
        - --hosts-secret-file=/hosts/secret
        {{- end }}
        - --device={{ .Values.device }}
        - --hostname=0.0.0.0
        - --port={{ .Values.port }}
        - --graceful-termination-timeout={{ .Values.drain.timeoutSeconds }}
        {{- if .Values.tls.secret }}
        - --ssl-certfile=/tls/tls.crt
        - --ssl-keyfile=/tls/tls.key
        {{- end }}
        {{- if .Values.existingSecrets.apiKeyFile.name }}
        - --api-key-file=/keys/keys
        {{- end }}
        {{- if and .Values.batch.enabled (not $worker) }}
        - --batch-folder=/batches/files
        {{- end }}
        - --json-output
        {{- include "penstock.options" . | nindent 8 }}
        {{- range .Values.args }}
        - {{ . | quote }}
        {{- end }}
      env:
        - {name: HF_HOME, value: /data}
        {{- if .Values.download.enabled }}
        - {name: HF_HUB_OFFLINE, value: "1"}
        {{- else }}
        {{- include "penstock.hubToken" . | nindent 8 }}
        {{- end }}
        {{- with .Values.existingSecrets.apiKey }}
        {{- if .name }}
        - name: API_KEY
          valueFrom:
            secretKeyRef: {name: {{ .name }}, key: {{ .key | quote }}}
        {{- end }}
        {{- end }}
        {{- with .Values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if not $worker }}
      ports:
        - {name: http, containerPort: {{ .Values.port }}}
        {{- with index .Values.options "prometheus-port" }}
        - {name: scrapes, containerPort: {{ . }}}
        {{- end }}
      startupProbe:
        httpGet: {path: /startup, port: http{{ if $values.tls.secret }}, scheme: HTTPS{{ end }}}
        periodSeconds: 10
        failureThreshold: {{ ceil (divf .Values.startup.budgetSeconds 10) }}
      livenessProbe:
        httpGet: {path: /live, port: http{{ if $values.tls.secret }}, scheme: HTTPS{{ end }}}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: {path: /ready, port: http{{ if $values.tls.secret }}, scheme: HTTPS{{ end }}}
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      {{- end }}
      lifecycle:
        preStop:
          exec:
            command: [sleep, {{ .Values.drain.preStopSeconds | quote }}]
      resources:
        {{- $resources := deepCopy .Values.resources }}
        {{- if eq .Values.device "cuda" }}
        {{- $gpus := dict "limits" (dict "nvidia.com/gpu" (int .Values.numShard)) }}
        {{- $resources = mergeOverwrite $resources $gpus }}
        {{- end }}
        {{- toYaml $resources | nindent 8 }}
      volumeMounts:
        - {name: shm, mountPath: /dev/shm}
        {{- if .Values.tls.secret }}
        - {name: tls, mountPath: /tls, readOnly: true}
        {{- end }}
        {{- if gt (int .Values.hosts.count) 1 }}
        - {name: hosts, mountPath: /hosts, readOnly: true}
        {{- end }}
        {{- if .Values.existingSecrets.apiKeyFile.name }}
        - {name: keys, mountPath: /keys, readOnly: true}
        {{- end }}
        {{- if and .Values.batch.enabled (not $worker) }}
        - {name: batches, mountPath: /batches}
        {{- end }}
        - {name: tmp, mountPath: /tmp}
        - {name: models, mountPath: /data{{ if .Values.download.enabled }}, readOnly: true{{ end }}}
        {{- with .Values.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
    - name: tmp
      emptyDir: {sizeLimit: 10Gi}
    {{- with .Values.tls.secret }}
    - name: tls
      secret: {secretName: {{ . }}, defaultMode: 288}
    {{- end }}
    {{- if gt (int .Values.hosts.count) 1 }}
    - name: hosts
      secret:
        secretName: {{ .Values.hosts.secret.name }}
        defaultMode: 288
        items: [{key: {{ .Values.hosts.secret.key | quote }}, path: secret}]
    {{- end }}
    {{- with .Values.existingSecrets.apiKeyFile }}
    {{- if .name }}
    - name: keys
      secret:
        secretName: {{ .name }}
        defaultMode: 288
        items: [{key: {{ .key | quote }}, path: keys}]
    {{- end }}
    {{- end }}
    {{- if and .Values.batch.enabled (not $worker) }}
    - name: batches
      persistentVolumeClaim: {claimName: {{ include "penstock.batchClaim" . }}}
    {{- end }}
    {{- with .Values.volumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    - name: models
      {{- if .Values.cache.enabled }}
      persistentVolumeClaim: {claimName: {{ include "penstock.claim" . }}}
      {{- else }}
      emptyDir: {sizeLimit: {{ .Values.cache.size }}}
      {{- end }}
  {{- if .Values.topologySpread.enabled }}
  topologySpreadConstraints:
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "penstock.selector" $root | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
