"""The Kubernetes objects of a model under TF Serving's official image.

They were checked as YAML and against the API's rules for names; no cluster has run them here.
"""

from __future__ import annotations

KUBERNETES = """\
# kubectl apply -f deploy/kubernetes.yaml, with the directory of the versions in a volume claimed as %(service)s
# The image is a tag: pin its digest (image: tensorflow/serving@sha256:...) once you have pulled and checked it.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: %(service_yaml)s
  labels: {app: %(service_yaml)s}
spec:
  replicas: 2
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  selector:
    matchLabels: {app: %(service_yaml)s}
  template:
    metadata:
      labels: {app: %(service_yaml)s}
    spec:
      automountServiceAccountToken: false
      # More than preStop and the longest request together.
      terminationGracePeriodSeconds: 40
      securityContext:
        runAsNonRoot: true
        runAsUser: 1000
        runAsGroup: 1000
        seccompProfile: {type: RuntimeDefault}
      containers:
        - name: serving
          image: %(image)s
          args:
            - %(config_flag)s
            - --enable_batching
            - --enable_per_model_batching_parameters
            - %(monitoring_flag)s
          ports:
            - {containerPort: 8500, name: grpc}
            - {containerPort: 8501, name: rest}
          # Twice the version, for the old one answers until the new one is loaded. CPUs have no limit, which would
          # delay answers.
          resources:
            requests: {cpu: "1", memory: %(memory)dMi}
            limits: {memory: %(memory)dMi}
          # Metadata are known once a version is loaded.
          startupProbe:
            httpGet: {path: %(metadata_yaml)s, port: rest}
            periodSeconds: 5
            failureThreshold: %(startup_failures)d
          readinessProbe:
            httpGet: {path: %(metadata_yaml)s, port: rest}
            periodSeconds: 5
            timeoutSeconds: 2
          # The status is answered without a model, so that a refused version restarts nothing.
          livenessProbe:
            httpGet: {path: %(status_yaml)s, port: rest}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          # TF Serving ends at once on SIGTERM. Until then, clients learn that the pod is going.
          lifecycle:
            preStop:
              exec: {command: ["sleep", "10"]}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: model, mountPath: %(home_yaml)s, readOnly: true}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: model
          persistentVolumeClaim: {claimName: %(service_yaml)s, readOnly: true}
        - name: tmp
          emptyDir: {}
---
apiVersion: v1
kind: Service
metadata:
  name: %(service_yaml)s
spec:
  selector: {app: %(service_yaml)s}
  ports:
    - {name: grpc, port: 8500, targetPort: grpc}
    - {name: rest, port: 8501, targetPort: rest}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: %(service_yaml)s
spec:
  minAvailable: 1
  selector:
    matchLabels: {app: %(service_yaml)s}
"""
