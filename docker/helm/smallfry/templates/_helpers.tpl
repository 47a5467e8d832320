{{- define "smallfry.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "smallfry" $name) }}{{ $name = printf "%s-smallfry" $name }}{{ end -}}
{{- $name | trunc 53 | trimSuffix "-" -}}
{{- end }}

{{- define "smallfry.selector" -}}
app.kubernetes.io/name: smallfry
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "smallfry.testSelector" -}}
app.kubernetes.io/name: smallfry-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "smallfry.labels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "smallfry.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "smallfry.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false # SMALLFRY_PORT=tcp://… of a Service named smallfry
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{- define "smallfry.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Numbers of values are floats, which would print as 4.194304e+06. */}}
{{- define "smallfry.option" -}}
{{- if kindIs "slice" . }}{{ join "," . -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) }}{{ int64 . -}}
{{- else }}{{ . }}{{ end -}}
{{- end }}
