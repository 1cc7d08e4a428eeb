{{- define "licensed.name" -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{- end }}

{{- define "licensed.selector" -}}
app.kubernetes.io/name: licensed
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "licensed.labels" -}}
{{ include "licensed.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "licensed.image" -}}{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{- end }}

{{- define "licensed.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Variables of the store, for processes and for the schema job. */}}
{{- define "licensed.store" -}}
- {name: LICENSED_STORE, value: {{ .Values.store.url | quote }}}
{{- if .Values.store.passwordSecret.name }}
- {name: LICENSED_STORE_PASSWORD_FILE, value: /etc/licensed/store/password}
{{- end }}
{{- end }}

{{/* The pod of a role: dict root, role (node or gateway), values, certificate. */}}
{{- define "licensed.pod" -}}
{{- $root := .root -}}
metadata:
  labels:
    {{- include "licensed.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  annotations:
    # A change of the settings replaces the pods one after the other.
    licensed/settings: {{ include (print $root.Template.BasePath "/settings.yaml") $root | sha256sum }}
spec:
  serviceAccountName: {{ include "licensed.name" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: {type: RuntimeDefault}
  topologySpreadConstraints:
    {{- range $key, $unsatisfiable := dict "topology.kubernetes.io/zone" "ScheduleAnyway" "kubernetes.io/hostname" "ScheduleAnyway" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $unsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "licensed.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.role }}
    {{- end }}
  affinity:
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "licensed.selector" $root | nindent 16 }}
                app.kubernetes.io/component: {{ .role }}
  {{- with .values.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: licensed
      image: {{ include "licensed.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args: [{{ .role }}, --config, /etc/licensed/settings/licensed.yaml]
      env:
        - {name: LICENSED_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
        - {name: LICENSED_HOST, value: $(POD_IP)}
        {{- include "licensed.store" $root | nindent 8 }}
      ports:
        {{- if eq .role "gateway" }}
        - {name: api, containerPort: 8080}
        {{- end }}
        - {name: admin, containerPort: 8081}
        - {name: gossip, containerPort: 7946}
        - {name: gossip-udp, containerPort: 7946, protocol: UDP}
        - {name: node, containerPort: 7947}
      # Waits for Cassandra for as long as --store-wait, then for shards or a node.
      startupProbe:
        httpGet: {path: /readyz, port: admin, scheme: HTTPS}
        periodSeconds: 2
        failureThreshold: 90
      readinessProbe:
        httpGet: {path: /readyz, port: admin, scheme: HTTPS}
        periodSeconds: 2
        timeoutSeconds: 4
      livenessProbe:
        httpGet: {path: /healthz, port: admin, scheme: HTTPS}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      lifecycle:
        preStop:
          # Time for services to forget the pod. SIGTERM, which follows, drains it: a node hands its customers over.
          sleep: {seconds: 5}
      resources: {{ toYaml .values.resources | nindent 8 }}
      securityContext: {{ include "licensed.container-security" $root | nindent 8 }}
      volumeMounts:
        - {name: settings, mountPath: /etc/licensed/settings, readOnly: true}
        - {name: certificate, mountPath: /etc/licensed/certificate, readOnly: true}
        - {name: auth, mountPath: /etc/licensed/auth, readOnly: true}
        - {name: gossip, mountPath: /etc/licensed/gossip, readOnly: true}
        {{- if $root.Values.store.passwordSecret.name }}
        - {name: store, mountPath: /etc/licensed/store, readOnly: true}
        {{- end }}
  volumes:
    - name: settings
      configMap: {name: {{ include "licensed.name" $root }}}
    - name: certificate
      secret: {secretName: {{ .certificate }}, defaultMode: 0440}
    - name: auth
      secret: {secretName: {{ $root.Values.secrets.auth }}, defaultMode: 0440}
    - name: gossip
      secret: {secretName: {{ $root.Values.secrets.gossip }}, defaultMode: 0440}
    {{- with $root.Values.store.passwordSecret }}
    {{- if .name }}
    - name: store
      secret: {secretName: {{ .name }}, defaultMode: 0440, items: [{key: {{ .key }}, path: password}]}
    {{- end }}
    {{- end }}
{{- end }}
