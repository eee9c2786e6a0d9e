{{- define "trypema.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "trypema.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
