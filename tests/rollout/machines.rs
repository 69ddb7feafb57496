//! The controllers of Kubernetes, as far as a gateway meets them: Deployments that roll, ReplicaSets that replace and choose whom to
//! delete, an autoscaler that keeps its bounds.

use revguard::rollout::seen::Of;
use revguard::rollout::step::Which;

use super::config::Rev;
use super::world::{Deployment, Pod, World, of};

impl World {
    fn of_set(&self, which: Which, rev: Rev) -> usize {
        self.counted(which).filter(|p| p.rev == rev).count()
    }

    /// The Deployment's controller, or one of its ReplicaSets, has something to do.
    pub fn is_behind(&self, which: Which, d: &Deployment) -> bool {
        d.observed < d.generation
            || self.rolled(which, d) != d.sets
            || Rev::ALL.into_iter().any(|rev| self.of_set(which, rev) != usize::from(d.sets[rev as usize]))
    }

    /// What the Deployment's controller wants of its ReplicaSets next.
    fn rolled(&self, which: Which, d: &Deployment) -> [u8; 3] {
        let mut sets = d.sets;
        let now = d.rev as usize;
        let all: u8 = sets.iter().sum();
        let others = all - sets[now];
        if others == 0 {
            // A paused Deployment makes no ReplicaSet for a new template, and scales the one that it has.
            sets[now] = d.replicas;
            return sets;
        }
        if d.paused {
            // It scales what it has: in proportion, which for one pod more or less is the largest.
            let largest = (0..3).max_by_key(|i| sets[*i]).expect("three");
            let surge = u8::from(d.paced);
            if all < d.replicas {
                sets[largest] += d.replicas - all;
            } else if all > d.replicas + surge {
                sets[largest] -= all - d.replicas - surge;
            }
            return sets;
        }
        // One more, and none less.
        let ready = self.alive(which).filter(|p| self.is_available(p)).count();
        if all < d.replicas + 1 && sets[now] < d.replicas {
            sets[now] += 1;
            return sets;
        }
        // As its controller counts: what is wanted of all, less what must be available, less what the new one still lacks.
        let available =
            |rev: usize| self.alive(which).filter(|p| p.rev as usize == rev && self.is_available(p)).count();
        let lacking = usize::from(sets[now]).saturating_sub(available(now));
        let spare = usize::from(all).saturating_sub(usize::from(d.replicas) + lacking);
        let other = (0..3).find(|i| *i != now && sets[*i] > 0).expect("others");
        let sick = usize::from(sets[other]) > available(other);
        if spare > 0 && (sick || ready > usize::from(d.replicas)) {
            sets[other] -= 1;
        }
        sets
    }

    /// With the seconds that it has to be ready for before it counts.
    fn is_available(&self, pod: &Pod) -> bool {
        pod.ready && (pod.endpoint || self.narrowed)
    }

    /// Their next step.
    pub fn roll(&mut self, which: Which) {
        let d = self.deployment(which).expect("it is there").clone();
        let rolled = self.rolled(which, &d);
        let deployment = self.deployments[which as usize].as_mut().expect("it is there");
        deployment.observed = deployment.generation;
        deployment.sets = rolled;
        for rev in Rev::ALL {
            let (is, wanted) = (self.of_set(which, rev), usize::from(rolled[rev as usize]));
            if is < wanted {
                self.start(of(which), rev);
                return;
            }
            if is > wanted {
                let victim = self.counted(which).filter(|p| p.rev == rev).min_by_key(|p| p.worth()).expect("one").id;
                let pod = self.pods.iter_mut().find(|p| p.id == victim).expect("one");
                (pod.deleting, pod.endpoint, pod.version) = (true, false, pod.version + 1);
                // Who changes the template of what serves, or lowers it, takes what it takes.
                let by_others = self.lowered || d.sets.iter().chain(&rolled).filter(|n| **n > 0).count() > 2;
                self.cut |= pod.of == Of::Apart && pod.busy && !by_others;
                return;
            }
        }
    }

    /// What the autoscaler makes of its Deployment's replicas.
    pub fn scaled(&self) -> Option<u8> {
        let hpa = self.hpa.as_ref()?;
        let replicas = self.deployment(hpa.target)?.replicas;
        let wanted = hpa.desired.max(hpa.min);
        (replicas > 0 && replicas != wanted).then_some(wanted)
    }

    pub fn scale(&mut self) {
        let Some(wanted) = self.scaled() else { return };
        let target = self.hpa.as_ref().expect("it scales").target;
        let d = self.deployments[target as usize].as_mut().expect("it is there");
        (d.replicas, d.version, d.generation) = (wanted, d.version + 1, d.generation + 1);
    }
}
